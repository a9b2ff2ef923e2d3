"""Training, as every example does it: the loop, its options, checkpoints, meshes and processes."""

from examples.training.loop import (
    Result,
    State,
    evaluate,
    init,
    model_structure,
    train,
    train_epoch,
)
from examples.training.task import DataSource, Layout, Task

__all__ = [
    "DataSource",
    "Layout",
    "Result",
    "State",
    "Task",
    "evaluate",
    "init",
    "model_structure",
    "train",
    "train_epoch",
]
