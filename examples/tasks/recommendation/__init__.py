"""Who interacted with what: MovieLens and Pinterest by the leave-one-out protocol, as arrays."""

from examples.tasks.recommendation.prepared import DatasetName, load
from examples.tasks.recommendation.protocol import Interactions

__all__ = ["DatasetName", "Interactions", "load"]
