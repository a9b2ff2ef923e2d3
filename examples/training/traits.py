"""Names the optimizers, switches and schedules, and says what each of them has."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

OptimizerName = Literal[
    "sgd",
    "nesterov",
    "lars",
    "adam",
    "adamw",
    "lamb",
    "lamb_plus",
    "muon",
    "adam_lawn",
    "lamb_lawn",
    "sgd_lawn",
    "hyperball",
    "adam_h",
    "muon_h",
    "adamp",
    "cpr",
]
SwitchName = Literal["flattening", "rise", "hold", "auto"]
BiasOptimizerName = Literal["sgd", "nesterov", "adam"]
DecayForm = Literal["l2", "decoupled"]
ScheduleName = Literal["polynomial", "cosine", "step-wise", "simple", "plateau", "abel"]


class Traits(NamedTuple):
    """Says what an optimizer has, and so which options it takes.

    Attributes:
      decay: the forms that weight decay may take, that of the optimizer's paper first; none where
        norms are fixed or bounded.
      momentum: whether it takes `momentum`.
      moments: whether it takes `b1` and `b2`.
      eps: whether it takes `adam_eps`.
      switch: whether it has LAWN's switch, and takes `norms_of`, `norms_scale` and `project`.
      matrices_alone: whether it trains hidden matrices alone, and Adam all else.
      rest_rate: whether it takes `rest_learning_rate`, that of this Adam.
    """

    decay: tuple[DecayForm, ...] = ()
    momentum: bool = False
    moments: bool = False
    eps: bool = False
    switch: bool = False
    matrices_alone: bool = False
    rest_rate: bool = False


OPTIMIZERS: Mapping[OptimizerName, Traits] = {
    "sgd": Traits(decay=("l2", "decoupled"), momentum=True),
    "nesterov": Traits(decay=("l2", "decoupled"), momentum=True),
    "lars": Traits(decay=("l2",), momentum=True),
    "adam": Traits(decay=("decoupled", "l2"), moments=True, eps=True),
    "adamw": Traits(decay=("decoupled",), moments=True, eps=True),
    "lamb": Traits(decay=("decoupled",), moments=True),
    "lamb_plus": Traits(decay=("decoupled",), moments=True),
    "muon": Traits(decay=("decoupled",), matrices_alone=True),
    "adam_lawn": Traits(moments=True, switch=True),
    "lamb_lawn": Traits(moments=True, switch=True),
    "sgd_lawn": Traits(momentum=True, switch=True),
    "hyperball": Traits(moments=True),
    "adam_h": Traits(matrices_alone=True, rest_rate=True),
    "muon_h": Traits(matrices_alone=True, rest_rate=True),
    "adamp": Traits(decay=("decoupled",), moments=True),
    "cpr": Traits(moments=True),
}


def having(trait: str) -> tuple[OptimizerName, ...]:
    """Return the optimizers that have a trait."""
    return tuple(name for name, traits in OPTIMIZERS.items() if getattr(traits, trait))


WITH_DECAY = having("decay")
WITH_SWITCH = having("switch")
ADAPTIVE_SCHEDULES: tuple[ScheduleName, ...] = ("plateau", "abel")  # They decide as training goes.
