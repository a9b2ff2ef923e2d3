"""Training, as every example does it: the loop, its options, checkpoints, meshes and processes."""

from examples.training.loop import (
    Feed,
    Result,
    State,
    Task,
    evaluate,
    init,
    train,
    train_epoch,
)

__all__ = ["Feed", "Result", "State", "Task", "evaluate", "init", "train", "train_epoch"]
