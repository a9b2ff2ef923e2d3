"""Tests of lawn_optax."""
