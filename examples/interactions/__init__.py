"""Who interacted with what: MovieLens and Pinterest by the leave-one-out protocol, as arrays."""

from examples.interactions.prepared import DatasetName, load
from examples.interactions.protocol import Interactions

__all__ = ["DatasetName", "Interactions", "load"]
