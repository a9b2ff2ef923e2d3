"""Recommends items: MovieLens and Pinterest as arrays, by the leave-one-out protocol."""

from examples.tasks.recommendation.prepared import DatasetName, load
from examples.tasks.recommendation.protocol import Interactions

__all__ = ["DatasetName", "Interactions", "load"]
