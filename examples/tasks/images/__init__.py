"""Image classification: the networks, the images and their augmentation, the task."""

from examples.tasks.images.models import ModelName, make_model

__all__ = ["ModelName", "make_model"]
