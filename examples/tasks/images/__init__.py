"""Image classification: the networks, the images and their augmentation, the task."""

from examples.tasks.images.models import ModelName, Network

__all__ = ["ModelName", "Network"]
