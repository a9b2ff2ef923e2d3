"""The settings of Nado et al. (2021) for ResNet-50 on ImageNet at batch 32,768, by name.

They are what LARS and LAMB are measured against there: Nesterov momentum and Adam, tuned as hard.
From their appendix, `A Large Batch Optimizer Reality Check <https://arxiv.org/abs/2102.06356>`_:

Table 5   Nesterov's Configurations A and B, and LARS, all 2,512 steps. L2 is of weights alone, as
          in A. B warms up from the rate of LARS, which the appendix does not give: 0 here.
Table 8   6,000 steps, the best of each search, with a cosine from the initial rate to 0. L2 of LARS
          and Nesterov, decoupled decay of LAMB and Adam, both of weights alone. Of LAMB with Adam
          the scan does not tell which epsilon had which best point: here both have the middle of
          the range that the two searches share, and neither has been tried.

LARS is that of You et al. (2017), as Optax has it. In Table 5 it leaves biases and normalisation to
heavy-ball momentum here, as in the first of its rows in Table 8. What else the appendix leaves open
is as Table 5 has it for LARS, but for virtual batches of 64 images everywhere, as A and B have,
momentum of 0.9 in Table 8 and Adam's usual decay rates. An epoch has 39 updates, so the schedules
end some updates before the last epoch does, and the final rate is kept.
"""

from collections.abc import Mapping
from typing import Any

from examples.tasks.images.recipes import Recipe
from examples.training.traits import having

BATCH, STEP = 32_768, 256
UPDATES_PER_EPOCH = 1_281_167 // BATCH


def schedule(steps: int, warmup_steps: int = 0) -> dict[str, Any]:
    """Return the options of a schedule that is stated in updates."""
    return {
        "epochs": -(-steps // UPDATES_PER_EPOCH),
        "warmup_epochs": warmup_steps / UPDATES_PER_EPOCH,
        "decay_epochs": steps / UPDATES_PER_EPOCH,
    }


PIPELINE: dict[str, Any] = {
    "batch_size": BATCH,
    "accumulate": BATCH // STEP,
    "clip_norm": None,
    "virtual_batch_size": 64,
    "label_smoothing": 0.10,
}
NESTEROV_A: dict[str, Any] = PIPELINE | {
    "optimizer": "nesterov",
    **schedule(2512, warmup_steps=638),
    "initial_rate": 0.12,  # Tables 21 to 23.
    "learning_rate": 7.05,
    "final_rate": 6e-6,
    "warmup_power": 2.497,
    "decay_power": 1.955,
    "momentum": 1 - 0.02397,
    "weight_decay": 5.8e-5,
    "label_smoothing": 0.15,
    "bn_momentum": 0.94,
    "bn_epsilon": 4e-6,
    "last_bn_scale": 0.4138,
}
NESTEROV_B = NESTEROV_A | {
    **schedule(2512, warmup_steps=706),
    "initial_rate": 0.0,
    "warmup_power": 2.0,
    "decay_power": 2.0,
    "bn_momentum": 0.9,
    "bn_epsilon": 1e-5,
}
LARS = PIPELINE | {
    "optimizer": "lars",
    "bias_optimizer": "sgd",
    **schedule(2512, warmup_steps=706),
    "learning_rate": 29.0,
    "final_rate": 1e-4,
    "decay_power": 2.0,
    "momentum": 1 - 0.071,
    "weight_decay": 1e-4,
}


def of_table_8(row: str, learning_rate: float, weight_decay: float, **optimizer: Any) -> Recipe:
    """Return a row that 6,000 updates are spent on, with its best point."""
    if optimizer["optimizer"] in having("momentum"):
        optimizer["momentum"] = 0.9
    cosine = {**schedule(6000), "schedule": "cosine"}
    point = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    return Recipe({**PIPELINE, **cosine, **point, **optimizer}, f"Nado et al., Table 8, {row}")


def lamb_and_adam(eps: float) -> Recipe:
    """Return LAMB with Adam for biases, at the middle of the ranges that it was tuned over last."""
    row = f"LAMB and Adam, epsilon {eps:g}, the middle of its ranges"
    return of_table_8(row, 0.0283, 2.83, optimizer="lamb", bias_optimizer="adam", adam_eps=eps)


RECIPES: Mapping[str, Recipe] = {
    "nesterov-32k-a": Recipe(NESTEROV_A, "Nado et al., Table 5, Configuration A"),
    "nesterov-32k-b": Recipe(NESTEROV_B, "Nado et al., Table 5, Configuration B"),
    "lars-32k": Recipe(LARS, "Nado et al., Table 5, LARS"),
    "nesterov-32k-6000": of_table_8("Nesterov", 1.173, 3.026e-4, optimizer="nesterov"),
    "lars-momentum-32k-6000": of_table_8(
        "LARS and heavy-ball momentum", 14.49, 1.708e-4, optimizer="lars", bias_optimizer="sgd"
    ),
    "lars-32k-6000": of_table_8("LARS", 14.18, 5.278e-5, optimizer="lars"),
    "adam-1e-8-32k-6000": of_table_8(
        "Adam, epsilon 1e-8", 0.004596, 0.6182, optimizer="adam", adam_eps=1e-8
    ),
    "adam-1e-6-32k-6000": of_table_8(
        "Adam, epsilon 1e-6", 0.003332, 1.055, optimizer="adam", adam_eps=1e-6
    ),
    "lamb-32k-6000": of_table_8("LAMB", 0.01134, 0.02657, optimizer="lamb"),
    "lamb-adam-1e-8-32k-6000": lamb_and_adam(1e-8),
    "lamb-adam-1e-6-32k-6000": lamb_and_adam(1e-6),
}
