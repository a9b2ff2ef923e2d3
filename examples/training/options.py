"""The options that the examples share: what is tuned, what is compiled, what is recorded."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

import jax
import jax.numpy as jnp
import tyro

from examples.training.distributed import Cluster
from examples.training.sharding import MeshConfig

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


def _having(trait: str) -> tuple[OptimizerName, ...]:
    """Return the optimizers that have a trait."""
    return tuple(name for name, traits in OPTIMIZERS.items() if getattr(traits, trait))


WITH_DECAY = _having("decay")
WITH_SWITCH = _having("switch")
# What only some optimizers have, of the weights or of the biases.
OF_OPTIMIZERS: Mapping[str, tuple[OptimizerName, ...]] = {
    "momentum": _having("momentum"),
    "b1": _having("moments"),
    "b2": _having("moments"),
    "adam_eps": _having("eps"),
    "norms_of": WITH_SWITCH,
    "norms_scale": WITH_SWITCH,
    "project": WITH_SWITCH,
}

WATCHING: tuple[ScheduleName, ...] = ("plateau", "abel")  # They decide as training goes.
# What only some schedules have.
OF_SCHEDULES: Mapping[str, tuple[ScheduleName, ...]] = {
    "decay_power": ("polynomial",),
    "final_rate": ("polynomial", "cosine"),
    "decay_epochs": ("polynomial", "cosine"),
    "decay_factor": ("step-wise", "simple", "plateau", "abel"),
    "decays_at": ("step-wise",),
    "last_decay_at": ("simple", "abel"),
    "average_over": ("abel",),
}

# `--help` lists these options first, then those of the example's own model and loss, then the LAST.
FIRST = (
    # Data and length
    *("dataset", "data_dir", "train_images", "validation_images", "image_size"),
    *("held_out_share", "epoch_tokens", "epochs", "longer", "batch_size", "accumulate"),
    # What a first run sets
    *("optimizer", "learning_rate", "learning_rates", "warmup_epochs"),
    *("weight_decay", "weight_decays", "free_epochs"),
)
LAST = (
    # Which norms are held, and how
    *("norms_of", "norms_scale", "project"),
    # The course of the learning rate
    *("schedule", "initial_rate", "warmup_power", "final_rate", "decay_power", "decay_epochs"),
    *("decay_factor", "decays_at", "last_decay_at", "average_over"),
    # The optimizer in detail
    *("momentum", "b1", "b2", "adam_eps", "decay_form", "decay_vectors"),
    *("bias_optimizer", "rest_learning_rate", "clip_norm", "flood_level"),
    # Seeds, files, devices
    *("tuning_seeds", "seeds", "first_seed", "out", "picture", "tensorboard", "checkpoint_dir"),
    *("checkpoint_every", "workers", "steps_at_once", "mesh", "cluster"),
)

# Where files are, how often they are written, and which devices compute.
SHAPES_NOTHING = (
    *("out", "data_dir", "checkpoint_dir", "checkpoint_every", "tensorboard"),
    *("mesh", "cluster", "workers"),
)

# Records from before there were these options lack them, and so do records of their defaults.
LATER = (
    *("norms_of", "norms_scale", "project", "rest_learning_rate", "bias_optimizer", "momentum"),
    *("b1", "b2", "adam_eps", "decay_form", "decay_vectors", "initial_rate", "warmup_power"),
    *("schedule", *OF_SCHEDULES, "init_scale", "objective", "long_length", "long_epochs"),
)

Scalar = Any  # A float or a float32 scalar, a traced one too.
Config = TypeVar("Config")


def in_order_of_use(config: type[Config]) -> type[Config]:
    """List the options of a dataclass for a reader: what a first run sets first, devices last.

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
      total_steps: updates until it is at its final value, if its schedule has one.
      clip_norm: what the norm of a gradient, all leaves together, is cut to; None for not at all.
      flood_level: below which the mean loss of a batch is turned back.
      accumulate: train steps whose mean gradient makes one update.
      switch: which one, where the free epochs are not a number.
      decay_steps: updates from which one more decay holds: of step-wise all, of simple the one, of
        abel the last.
      others: as `Options` explains them.
    """

    optimizer: OptimizerName
    steps_per_epoch: int
    warmup_steps: int
    total_steps: int
    clip_norm: float | None
    flood_level: float
    accumulate: int = 1
    switch: SwitchName | None = None
    project: bool = True
    bias_optimizer: BiasOptimizerName | None = None
    momentum: float = 0.9
    b1: float = 0.9
    b2: float = 0.999
    adam_eps: float = 1e-8
    decay_form: DecayForm = "decoupled"
    decay_vectors: bool = False
    initial_rate: float = 0.0
    final_rate: float = 0.0
    warmup_power: float = 1.0
    schedule: ScheduleName = "polynomial"
    decay_power: float = 1.0
    decay_factor: float = 0.1
    decay_steps: tuple[int, ...] = ()
    average_over: int = 1


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

    def per_run(self, runs: int) -> "Hyperparameters":
        """Return float32 arrays `(runs,)`, of numbers or of such arrays."""
        return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), runs), self)

    @classmethod
    def stack(cls, runs: Iterable["Hyperparameters"]) -> "Hyperparameters":
        """Return arrays `(runs,)` of the numbers of each run."""
        return jax.tree.map(lambda *numbers: jnp.array(numbers), *runs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every run has, whatever its optimizer."""

    epochs: int = 20
    """Passes over the training set."""
    warmup_epochs: float = 1.0
    """Epochs in which the learning rate rises to its peak; then it falls by its schedule."""
    batch_size: int = 100
    """Training examples per update of the weights."""
    seeds: int = 5
    """How many seeds to train, in one program; the table shows their mean and standard error."""
    first_seed: int = 0
    """The first seed; the others follow it."""
    out: Path | None = None
    """File to append one JSON record per seed to: options, versions, metrics of every epoch."""
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
    """Names with _lawn: that optimizer, with fixed norms from the switch on (see --free-epochs).
    adam, adamw: both are Adam with decoupled weight decay, unless --decay-form says l2 of adam.
    sgd, lars: heavy-ball momentum; nesterov: SGD with Nesterov momentum.
    hyperball: Adam with all norms fixed from the start, and relative steps.
    muon: Muon for hidden matrices, with steps scaled to the size of Adam's; Adam for all else.
    adam_h, muon_h: hidden matrices keep their initial norms; Adam for all else.
    adamp: Adam without the part of a step along weights whose norm the loss ignores.
    cpr: Adam with norms bounded from the inflection of their growth on."""
    learning_rate: float = 1e-3
    """Peak of the learning rate: what to tune first."""
    rest_learning_rate: float | None = None
    """adam_h and muon_h: peak learning rate of embeddings, the last layer and all vectors.
    By default --learning-rate, which there is relative to the norms of matrices: tune both."""
    weight_decay: float = 0.0
    """Weight decay of kernels and embeddings, multiplied by the learning rate; see --decay-form.
    muon applies it to the matrices that Muon trains; optimizers that fix or bound norms have
    none."""
    decay_form: DecayForm | None = None
    """l2: weight decay is added to the gradient, before norms and momentum are taken.
    decoupled: it is a step of its own, as in AdamW.
    By default l2 for sgd, nesterov and lars, decoupled for the others."""
    decay_vectors: bool = False
    """Apply weight decay to biases and normalisation scales, too."""
    bias_optimizer: BiasOptimizerName | None = None
    """Another optimizer for biases and normalisation, at the same learning rate, without decay.
    By default the same optimizer trains them."""
    momentum: float = 0.9
    """Momentum of sgd, nesterov, lars and sgd_lawn."""
    b1: float = 0.9
    """Decay rate of the first moment, for Adam and LAMB; not for muon, adam_h and muon_h."""
    b2: float = 0.999
    """Decay rate of the second moment, for the same."""
    adam_eps: float = 1e-8
    """Epsilon of adam and adamw, beside the root of the second moment; LAMB and LAWN have 1e-6."""
    initial_rate: float = 0.0
    """Learning rate at the start of the warm-up."""
    final_rate: float = 0.0
    """Schedules polynomial and cosine: learning rate at the end."""
    warmup_power: float = 1.0
    """Power of the warm-up: 1 is linear, a larger one starts more slowly."""
    schedule: ScheduleName = "polynomial"
    """How the learning rate falls after its warm-up.
    polynomial, cosine: smoothly, to --final-rate.
    The others multiply it by --decay-factor. step-wise: at the epochs of --decays-at.
    simple: once, late. plateau: when the training loss has not fallen for more than 10 epochs.
    abel: when the weight norm has fallen, risen and turned again; give it some weight decay."""
    decay_power: float = 1.0
    """Schedule polynomial: power of the decay; 1 is linear, a larger one ends more slowly."""
    decay_epochs: float | None = None
    """Schedules polynomial and cosine: epoch at which --final-rate is reached, and then kept.
    By default the last."""
    decay_factor: float = 0.1
    """Schedules step-wise, simple, plateau and abel: factor on the learning rate at each decay."""
    decays_at: tuple[float, ...] = (1 / 3, 2 / 3)
    """Schedule step-wise: when it decays, as shares of all epochs, such as 0.3 0.6 0.8."""
    last_decay_at: float = 0.85
    """Schedules simple and abel: when the one late decay comes, as a share of all epochs."""
    average_over: int = 1
    """Schedule abel: epochs over which weight norms are averaged; more where they are noisy."""
    free_epochs: float | SwitchName = "flattening"
    """LAWN's switch: how many epochs to train freely before norms are fixed, or an automatic rule.
    flattening: remembers the norms when the loss has fallen by 30% or, after a plateau, when the
    gradient begins to rise relative to it; fixes them when that rise is 25%.
    rise: the rise of the gradient alone.
    hold: when the median margin reaches 3; then adjusts the norms to keep it there.
    auto: when the running average of the median margin reaches 2.5."""
    norms_of: float | None = None
    """If --free-epochs is a number: fix the norms of this earlier epoch, not of the switch."""
    norms_scale: float | None = None
    """Factor on the norms that the switch takes, before they are fixed; below 1: smaller logits."""
    project: bool = True
    """Whether the gradient and the step are projected onto the tangent space, as the paper has it;
    without, norms are held by rescaling alone, in less time."""
    clip_norm: float | None = None
    """Clip the global norm of the gradient to this."""
    flood_level: float = 0.0
    """Flooding: keep the mean loss of a batch from falling below this; 0 turns it off."""
    checkpoint_dir: Path | None = None
    """Folder for checkpoints: the same command resumes from the last one, on any mesh."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    tensorboard: Path | None = None
    """Folder to write TensorBoard event files to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint_every < 1:
            raise ValueError(f"checkpoint_every={self.checkpoint_every} must be at least 1.")
        for name in ("learning_rate", "weight_decay", "free_epochs", "initial_rate", "final_rate"):
            value = getattr(self, name)
            if value not in get_args(SwitchName) and not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} must be at least 0, and finite.")
        for name in ("momentum", "b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0 and below 1.")
        for name in ("adam_eps", "warmup_power", "decay_power"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0, and finite.")
        if self.norms_of is not None and not self._earlier(self.norms_of):
            raise ValueError(
                f"norms_of={self.norms_of} must be an epoch from 0 to free_epochs="
                f"{self.free_epochs}, which must be a number."
            )
        if self.norms_scale is not None and not 0 < self.norms_scale < math.inf:
            raise ValueError(f"norms_scale={self.norms_scale} must be above 0, and finite.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm={self.clip_norm} must be above 0, or None.")
        if not self.flood_level >= 0:
            raise ValueError(f"flood_level={self.flood_level} must be at least 0.")
        self._check_optimizer()
        self._check_schedule()

    def _check_optimizer(self) -> None:
        """Refuse options that the optimizer does not have."""
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer={self.optimizer!r} must be one of {(*OPTIMIZERS,)}.")
        if self.weight_decay and self.optimizer not in WITH_DECAY:
            raise ValueError(
                f"weight_decay={self.weight_decay} with optimizer={self.optimizer!r}: norms that"
                f" are fixed or bounded have no decay; leave it 0, or take one of {WITH_DECAY}."
            )
        traits = OPTIMIZERS[self.optimizer]
        forms = traits.decay
        if self.decay_form is not None and self.decay_form not in forms:
            raise ValueError(
                f"decay_form={self.decay_form!r} with optimizer={self.optimizer!r}:"
                f" {f'it has {forms[0]!r} alone' if forms else 'it has no decay'}; leave it out."
            )
        if self.bias_optimizer and traits.matrices_alone:
            raise ValueError(
                f"bias_optimizer={self.bias_optimizer!r} with optimizer={self.optimizer!r}: biases"
                " have Adam there; leave it out."
            )
        if self.decay_vectors and (self.bias_optimizer or traits.matrices_alone or not forms):
            raise ValueError(
                f"decay_vectors=True with optimizer={self.optimizer!r} and bias_optimizer="
                f"{self.bias_optimizer!r}: biases have no decay there; leave it out."
            )
        rest = self.rest_learning_rate
        if rest is not None and not (traits.rest_rate and 0 <= rest < math.inf):
            raise ValueError(
                f"rest_learning_rate={rest} with optimizer={self.optimizer!r}: it must be at least"
                f" 0, and is for {' and '.join(_having('rest_rate'))}."
            )
        self._refuse_others(OF_OPTIMIZERS, "optimizer", "bias_optimizer")

    def _check_schedule(self) -> None:
        """Refuse a learning rate that cannot fall as it is to."""
        end = self.decay_epochs
        if end is not None and not self.warmup_epochs <= end <= self.epochs:
            raise ValueError(
                f"decay_epochs={end} must lie between warmup_epochs={self.warmup_epochs} and"
                f" epochs={self.epochs}: for a run as short, give both, or None for the last epoch."
            )
        for name in ("decay_factor", "last_decay_at"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be between 0 and 1.")
        if not all(a < b for a, b in itertools.pairwise((0, *self.decays_at, 1))):
            raise ValueError(f"decays_at={self.decays_at} must rise, and lie between 0 and 1.")
        if self.average_over < 1:
            raise ValueError(f"average_over={self.average_over} must be at least 1.")
        if self.schedule not in get_args(ScheduleName):
            raise ValueError(f"schedule={self.schedule!r} must be one of {get_args(ScheduleName)}.")
        if self.schedule in WATCHING and self.optimizer not in WITH_DECAY:
            raise ValueError(
                f"schedule={self.schedule!r} with optimizer={self.optimizer!r}: it scales whole"
                " steps, and a fraction of one leaves the spheres; take a schedule that is known"
                f" beforehand, such as 'cosine', or one of {WITH_DECAY}."
            )
        self._refuse_others(OF_SCHEDULES, "schedule")
        for name in ("initial_rate", "warmup_power"):
            if not self.warmup_epochs and getattr(self, name) != self._default(name):
                raise ValueError(
                    f"{name}={getattr(self, name)} with warmup_epochs={self.warmup_epochs}: there"
                    " is no warm-up; leave it out."
                )

    def _refuse_others(self, owners: Mapping[str, tuple[str, ...]], *choosers: str) -> None:
        """Refuse options that are given and that none of what is chosen has."""
        chosen = {name: getattr(self, name) for name in choosers if getattr(self, name)}
        given = owners.keys() - self._defaults_among(owners)
        for name, having in owners.items():
            if name in given and not {*chosen.values()} & {*having}:
                with_these = " and ".join(f"{of}={value!r}" for of, value in chosen.items())
                raise ValueError(
                    f"{name}={getattr(self, name)} with {with_these}: it is of"
                    f" {' and '.join(having)} alone; leave it at {self._default(name)}."
                )

    def _defaults_among(self, names: Iterable[str]) -> set[str]:
        """Return which options are at their defaults."""
        known = self.__dataclass_fields__
        return {x for x in names if x in known and getattr(self, x) == self._default(x)}

    def _default(self, name: str) -> Any:
        """Return the default of an option."""
        return self.__dataclass_fields__[name].default

    def constrains(self) -> bool:
        """Tell whether the optimizer has a switch."""
        return self.optimizer in WITH_SWITCH

    def _earlier(self, epoch: float) -> bool:
        """Tell whether norms can be those of an epoch."""
        return not isinstance(self.free_epochs, str) and 0 <= epoch <= self.free_epochs

    def config(self) -> dict[str, Any]:
        """Return all that shapes the result, for a record."""
        left_out = {*SHAPES_NOTHING, *self._defaults_among(LATER)}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in left_out}

    def static_options(self, steps_per_epoch: int) -> StaticOptions:
        """Return what of these options is compiled into a program."""
        decay_epochs = self.epochs if self.decay_epochs is None else self.decay_epochs
        forms = OPTIMIZERS[self.optimizer].decay or ("decoupled",)
        named_alike = {*StaticOptions._fields} & {*self.__dataclass_fields__} - {"decay_form"}
        return StaticOptions(
            steps_per_epoch=steps_per_epoch,
            warmup_steps=round(self.warmup_epochs * steps_per_epoch),
            total_steps=round(decay_epochs * steps_per_epoch),
            switch=self.free_epochs if isinstance(self.free_epochs, str) else None,
            decay_form=self.decay_form or forms[0],
            decay_steps=tuple(round(x * self.epochs * steps_per_epoch) for x in self._decays()),
            **{name: getattr(self, name) for name in named_alike},
        )

    def _decays(self) -> tuple[float, ...]:
        """Return the shares of the epochs after which the learning rate decays in any case."""
        if self.schedule == "step-wise":
            return self.decays_at
        return (self.last_decay_at,) if self.schedule in ("simple", "abel") else ()

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
