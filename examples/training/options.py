"""The options that the examples share, and how an optimizer is made from them."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

import jax
import optax
import tyro

import lawn_optax
from examples.training.distributed import Cluster
from examples.training.learning_rate import WATCHING, Decay, ScheduleName, make_schedule, watch
from examples.training.sharding import MeshConfig
from examples.training.task import Layout

OptimizerName = Literal[
    "sgd",
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
]
SwitchName = Literal["rise", "hold", "auto"]
WITH_DECAY: tuple[OptimizerName, ...] = ("sgd", "adam", "adamw", "lamb", "lamb_plus", "muon")
OF_SCHEDULE = ("schedule", "decay_factor", "decays_at", "last_decay_at", "average_over")

# `--help` begins with these options, has all others as their classes do, and ends with these.
FIRST = (
    *("dataset", "data_dir", "train_images", "validation_images", "image_size"),
    *("held_out_share", "epoch_tokens", "epochs", "longer", "batch_size", "accumulate"),
    *("optimizer", "learning_rate", "learning_rates", "warmup_epochs"),
    *OF_SCHEDULE,
    *("weight_decay", "weight_decays"),
)
LAST = (
    *("tuning_seeds", "seeds", "first_seed", "out", "picture", "tensorboard", "checkpoint_dir"),
    *("checkpoint_every", "workers", "steps_at_once", "mesh", "cluster"),
)

# Where files are, how often they are written, and which devices compute.
SHAPES_NOTHING = (
    *("out", "data_dir", "checkpoint_dir", "checkpoint_every", "tensorboard"),
    *("mesh", "cluster", "workers"),
)

NOTHING_STACKED = Layout()

Scalar = Any  # A float or a float32 scalar, a traced one too.
Config = TypeVar("Config")


def in_order_of_use(config: type[Config]) -> type[Config]:
    """List the options of a dataclass for a reader: data and optimizer first, devices last.

    A dataclass has the fields of its bases before its own, so the mesh before the dataset.
    """
    fields = config.__dataclass_fields__  # type: ignore[attr-defined]
    middle = [name for name in fields if name not in FIRST + LAST]
    order = [name for name in (*FIRST, *middle, *LAST) if name in fields]
    config.__dataclass_fields__ = {name: fields[name] for name in order}  # type: ignore[attr-defined]
    return config


class StaticOptions(NamedTuple):
    """What of an optimizer is fixed when a program is compiled.

    Attributes:
      optimizer: its name.
      steps_per_epoch: updates in an epoch.
      warmup_steps: updates until the learning rate peaks.
      total_steps: updates until a linear or cosine schedule is back at 0.
      clip_norm: what the norm of a gradient, all leaves together, is cut to; None for not at all.
      flood_level: below which the mean loss of a batch is turned back.
      momentum: of sgd and sgd_lawn.
      accumulate: train steps whose mean gradient makes one update.
      switch: which one, where the free epochs are not a number.
      decay: how the learning rate falls from its peak.
    """

    optimizer: OptimizerName
    steps_per_epoch: int
    warmup_steps: int
    total_steps: int
    clip_norm: float | None
    flood_level: float
    momentum: float = 0.9
    accumulate: int = 1
    switch: SwitchName | None = None
    decay: Decay = Decay()


class Hyperparameters(NamedTuple):
    """What of an optimizer is tuned, and may be traced: so one program runs a whole grid.

    Attributes:
      learning_rate: the peak.
      weight_decay: of kernels and embeddings.
      free_epochs: epochs before LAWN's switch; None for an automatic one.
      norms_of: the earlier epoch whose norms are held; None for that of the switch.
      norms_scale: a factor on the norms that are held; None for 1.
      rest_learning_rate: the peak of what is on no sphere, of adam_h and muon_h; None for the same.
    """

    learning_rate: Scalar
    weight_decay: Scalar = 0.0
    free_epochs: Scalar | None = None
    norms_of: Scalar | None = None
    norms_scale: Scalar | None = None
    rest_learning_rate: Scalar | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every run has, whatever its optimizer."""

    epochs: int = 20
    """Passes over the training set."""
    warmup_epochs: float = 1.0
    """Epochs in which the learning rate rises from 0 to its peak; then it falls by its schedule."""
    batch_size: int = 100
    """Training examples per update of the weights."""
    seeds: int = 5
    """How many seeds to train, all in one program: the table has their mean and standard error."""
    first_seed: int = 0
    """The first of the seeds; the others are the numbers after it."""
    out: Path | None = None
    """File to append a line of JSON per seed to: options, versions, the curve of every epoch."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """How many devices to use, and how."""
    cluster: Annotated[Cluster, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Cluster)
    """Whether this is one of several processes."""

    @property
    def all_seeds(self) -> range:
        """Return the seeds themselves."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs} must lie between 0 and epochs={self.epochs}:"
                " for a run as short, give a shorter warm-up too, such as 0."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """A run of one optimizer at one setting."""

    optimizer: OptimizerName = "adam_lawn"
    """With _lawn: the optimizer of that name, and on fixed norms from the switch on.
    Both adam and adamw are Adam with decoupled weight decay; hyperball fixes the initial norms.
    With muon hidden layers take Muon's steps, as long as Adam's are, and all else takes Adam's.
    With adam_h and muon_h hidden layers keep their initial norms, all else takes Adam's steps."""
    learning_rate: float = 1e-3
    """Peak of the learning rate: what to tune first."""
    rest_learning_rate: float | None = None
    """With adam_h and muon_h, the peak for embeddings, the last layer and all vectors.
    By default that of the hidden layers, whose steps are relative to their norms: tune both."""
    weight_decay: float = 0.0
    """Decay of kernels and embeddings, times the learning rate; sgd adds it to the gradient.
    What has fixed norms takes none, and of muon what takes Adam's steps."""
    free_epochs: float | SwitchName = "rise"
    """LAWN's switch: how many epochs before it fixes the norms, or a rule that finds the moment.
    The rule rise: when the gradient rises; the norms are those of the moment when this began.
    The rule hold: when the median margin reaches 3; the norms are then steered to keep it there.
    The rule auto: when the median margin is 2.5 for good."""
    norms_of: float | None = None
    """Fix the norms of this earlier epoch and not those at the end of the free epochs."""
    norms_scale: float | None = None
    """Fix norms this many times as large as those that the switch takes; by default as large."""
    schedule: ScheduleName = "linear"
    """How the learning rate falls after its warm-up: linear and cosine go to 0.
    The others multiply it by the decay factor: step-wise after some epochs, simple once and late,
    plateau when the training loss has not fallen for more than 10 epochs.
    And abel when the weight norm has fallen, risen and turned again; give it some weight decay."""
    decay_factor: float = 0.1
    """What a decay multiplies the learning rate by, where the schedule is not linear or cosine."""
    decays_at: tuple[float, ...] = (1 / 3, 2 / 3)
    """Shares of the epochs after which step-wise decays, such as 0.3 0.6 0.8."""
    last_decay_at: float = 0.85
    """Share of the epochs after which simple decays, and abel once more."""
    average_over: int = 1
    """Epochs that abel averages weight norms over to compare them: more where they are noisy."""
    clip_norm: float | None = None
    """Largest norm of the gradient as a whole; a larger one is scaled down to it."""
    flood_level: float = 0.0
    """Flooding: keep the mean loss of a batch from falling below this; 0: let it fall."""
    checkpoint_dir: Path | None = None
    """Folder to keep checkpoints in: the same command then goes on from the last, on any mesh."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    tensorboard: Path | None = None
    """Folder to write TensorBoard event files to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint_every < 1:
            raise ValueError(f"checkpoint_every={self.checkpoint_every} must be at least 1.")
        for name in ("learning_rate", "weight_decay", "free_epochs"):
            value = getattr(self, name)
            if value not in get_args(SwitchName) and not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} must be at least 0, and finite.")
        if self.norms_of is not None and not self._earlier(self.norms_of):
            raise ValueError(
                f"norms_of={self.norms_of} must be an epoch from 0 to free_epochs="
                f"{self.free_epochs}, which must be a number."
            )
        if self.norms_scale is not None and not 0 < self.norms_scale < math.inf:
            raise ValueError(f"norms_scale={self.norms_scale} must be above 0, and finite.")
        if self.optimizer not in get_args(OptimizerName):
            raise ValueError(
                f"optimizer={self.optimizer!r} must be one of {get_args(OptimizerName)}."
            )
        if self.weight_decay and self.optimizer not in WITH_DECAY:
            raise ValueError(
                f"weight_decay={self.weight_decay} with optimizer={self.optimizer!r}: norms that"
                f" are fixed cannot decay; leave it 0, or take one of {WITH_DECAY}."
            )
        rest = self.rest_learning_rate
        if rest is not None and (not 0 <= rest < math.inf or not self.optimizer.endswith("_h")):
            raise ValueError(
                f"rest_learning_rate={rest} with optimizer={self.optimizer!r}: it must be at least"
                " 0, and is for adam_h and muon_h."
            )
        self._check_schedule()
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm={self.clip_norm} must be above 0, or None.")
        if not self.flood_level >= 0:
            raise ValueError(f"flood_level={self.flood_level} must be at least 0.")

    def _check_schedule(self) -> None:
        """Refuse a learning rate that cannot fall as it is to."""
        if self.schedule not in get_args(ScheduleName):
            raise ValueError(f"schedule={self.schedule!r} must be one of {get_args(ScheduleName)}.")
        if self.schedule in WATCHING and self.optimizer not in WITH_DECAY:
            raise ValueError(
                f"schedule={self.schedule!r} with optimizer={self.optimizer!r}: it scales whole"
                " steps, and a fraction of one leaves the spheres; take a schedule that is known"
                f" beforehand, such as 'cosine', or one of {WITH_DECAY}."
            )
        if not 0 < self.decay_factor < 1:
            raise ValueError(f"decay_factor={self.decay_factor} must be between 0 and 1.")
        if not 0 < self.last_decay_at < 1:
            raise ValueError(f"last_decay_at={self.last_decay_at} must be between 0 and 1.")
        if not all(a < b for a, b in itertools.pairwise((0, *self.decays_at, 1))):
            raise ValueError(f"decays_at={self.decays_at} must rise, and lie between 0 and 1.")
        if self.average_over < 1:
            raise ValueError(f"average_over={self.average_over} must be at least 1.")

    def constrains(self) -> bool:
        """Tell whether the optimizer has a switch."""
        return self.optimizer.endswith("_lawn")

    def _earlier(self, epoch: float) -> bool:
        """Tell whether norms can be those of an epoch."""
        return not isinstance(self.free_epochs, str) and 0 <= epoch <= self.free_epochs

    def config(self) -> dict[str, Any]:
        """Return all that shapes the result, for a record."""
        given = dataclasses.asdict(self)
        for name in ("norms_of", "norms_scale", "rest_learning_rate"):
            if given[name] is None:  # Records from before there was such an option lack it.
                del given[name]
        if self.schedule == "linear":
            given = {k: v for k, v in given.items() if k not in OF_SCHEDULE}
        return {k: v for k, v in given.items() if k not in SHAPES_NOTHING}

    def static_options(self, steps_per_epoch: int) -> StaticOptions:
        """Return what of these options is compiled into a program."""
        warmup_steps = round(self.warmup_epochs * steps_per_epoch)
        return StaticOptions(
            self.optimizer,
            steps_per_epoch,
            warmup_steps,
            self.epochs * steps_per_epoch,
            self.clip_norm,
            self.flood_level,
            switch=self.free_epochs if isinstance(self.free_epochs, str) else None,
            decay=self._decay(self.epochs * steps_per_epoch),
        )

    def _decay(self, total_steps: int) -> Decay:
        """Return how the learning rate falls, the shares of training as updates."""
        if self.schedule == "linear":
            return Decay()  # So that what it does not use compiles no other program.
        shares = self.decays_at if self.schedule == "step-wise" else (self.last_decay_at,)
        steps = tuple(round(share * total_steps) for share in shares)
        return Decay(self.schedule, self.decay_factor, steps, self.average_over)

    def hyperparameters(self) -> Hyperparameters:
        """Return what of these options may be traced."""
        free_epochs = None if isinstance(self.free_epochs, str) else self.free_epochs
        return Hyperparameters(
            self.learning_rate,
            self.weight_decay,
            free_epochs,
            self.norms_of,
            self.norms_scale,
            self.rest_learning_rate,
        )


def make_optimizer(
    static: StaticOptions, hyperparameters: Hyperparameters, layout: Layout = NOTHING_STACKED
) -> optax.GradientTransformationExtraArgs:
    """Make the optimizer that the options name.

    Args:
      static: from `Options.static_options`.
      hyperparameters: from `Options.hyperparameters`, or with traced scalars in their place.
      layout: from the task, so that norms and trust ratios are those of single layers.

    Returns:
      An optimizer whose `update` takes `margin=` and `value=`, whether it needs them or not.
    """
    learning_rate, weight_decay, *_ = hyperparameters
    switch = make_switch(static, hyperparameters)
    of_rest = hyperparameters.rest_learning_rate
    rate, rest = (
        make_schedule(static.decay, peak, static.warmup_steps, static.total_steps)
        for peak in (learning_rate, learning_rate if of_rest is None else of_rest)
    )
    decays, stacked = _decays(layout), layout.stacked or None
    scale = 1.0 if hyperparameters.norms_scale is None else hyperparameters.norms_scale
    tx: optax.GradientTransformation
    match static.optimizer:
        case "sgd":
            decay = optax.add_decayed_weights(weight_decay, decays)
            tx = optax.chain(decay, optax.sgd(rate, momentum=static.momentum))
        case "adam" | "adamw":
            tx = optax.adamw(rate, eps=1e-8, weight_decay=weight_decay, mask=decays)
        case "lamb" if stacked:  # Optax's has one trust ratio for all layers of a leaf.
            tx = lawn_optax.lamb_plus(
                rate, weight_decay=weight_decay, max_ratio=math.inf, mask=decays, stacked=stacked
            )
        case "lamb":
            tx = optax.lamb(rate, eps=1e-6, weight_decay=weight_decay, mask=decays)
        case "lamb_plus":
            tx = lawn_optax.lamb_plus(rate, weight_decay=weight_decay, mask=decays, stacked=stacked)
        case "muon":
            tx = optax.contrib.muon(
                rate,
                weight_decay=weight_decay,
                muon_weight_dimension_numbers=_matrices(layout),
                consistent_rms=0.2,  # So that one learning rate serves matrices and the rest.
            )
        case "adam_lawn":
            tx = lawn_optax.adam_lawn(rate, switch, stacked=stacked, target_scale=scale)
        case "lamb_lawn":
            tx = lawn_optax.lamb_lawn(rate, switch, stacked=stacked, target_scale=scale)
        case "sgd_lawn":
            tx = lawn_optax.sgd_lawn(
                rate, switch, momentum=static.momentum, stacked=stacked, target_scale=scale
            )
        case "hyperball":
            tx = lawn_optax.hyperball(optax.scale_by_adam(eps=1e-6), rate, stacked=stacked)
        case "adam_h":
            tx = lawn_optax.adam_h(rate, rest, labels=_ends(layout), stacked=stacked)
        case "muon_h":
            tx = lawn_optax.muon_h(
                rate,
                rest,
                weight_dimension_numbers=_matrices(layout),
                labels=_ends(layout),
                stacked=stacked,
            )
    tx = watch(tx, static.decay, static.steps_per_epoch)
    if static.clip_norm is not None:
        tx = optax.chain(optax.clip_by_global_norm(static.clip_norm), tx)
    tx = optax.with_extra_args_support(tx)
    if static.accumulate > 1:
        # Around all else: clipping, schedules and LAWN see mean gradients and count updates.
        steps = optax.MultiSteps(tx, static.accumulate)
        tx = optax.GradientTransformationExtraArgs(steps.init, steps.update)
    return tx


def make_switch(static: StaticOptions, hyperparameters: Hyperparameters) -> lawn_optax.Switch:
    """Make LAWN's switch."""
    free_epochs, norms_of = hyperparameters.free_epochs, hyperparameters.norms_of
    if free_epochs is not None:
        return lawn_optax.at_epoch(free_epochs, static.steps_per_epoch, norms_of=norms_of)
    match static.switch:
        case "rise":
            return lawn_optax.at_gradient_rise()
        case "hold":
            return lawn_optax.hold_median_margin()
        case _:
            return lawn_optax.at_median_margin()


def _decays(layout: Layout) -> Callable[[optax.Params], optax.Params]:
    """Return a mask of the leaves that LAWN would constrain: kernels and embeddings."""
    return lambda params: jax.tree.map_with_path(
        lambda path, w: _rank(path, w, layout) >= 2, params
    )


def _matrices(layout: Layout) -> Callable[[optax.Params], optax.Params]:
    """Return what tells Muon its matrices: kernels from all inputs to outputs, not the ends."""

    def of_leaf(path: tuple, w: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        rank = _rank(path, w, layout)
        if rank < 2 or any(name in layout.ends for name in _components(path)):
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(-rank, -1)), -1)

    return lambda params: jax.tree.map_with_path(of_leaf, params)


def _ends(layout: Layout) -> dict[str, str]:
    """Return the group of the ends where hidden matrices are on spheres."""
    return dict.fromkeys(layout.ends, "other")


def _rank(path: tuple, w: jax.Array, layout: Layout) -> int:
    """Return how many axes a leaf has in a single layer."""
    return w.ndim - any(name in layout.stacked for name in _components(path))


def _components(path: tuple) -> list[str]:
    return jax.tree_util.keystr(path, simple=True, separator="/").split("/")
