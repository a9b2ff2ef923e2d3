"""The problems that the examples train on: data, model, loss and scores."""
