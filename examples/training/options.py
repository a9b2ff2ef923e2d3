"""The options that the examples share: what is tuned, what is compiled, what is recorded."""

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import tyro

from examples.training import limits
from examples.training.distributed import Cluster
from examples.training.hyperparameters import Hyperparameters, StaticOptions
from examples.training.limits import (
    A_SEED,
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    BELOW_1,
    BETWEEN_0_AND_1,
    Only,
)
from examples.training.sharding import MeshConfig
from examples.training.traits import (
    ADAPTIVE_SCHEDULES,
    OPTIMIZERS,
    WITH_DECAY,
    BiasOptimizerName,
    DecayForm,
    OptimizerName,
    ScheduleName,
    SwitchName,
    having,
)

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


def of_optimizers(trait: str) -> Only:
    """Mark an option that only optimizers with a trait have, of the weights or of the biases."""
    return Only(having(trait), ("optimizer", "bias_optimizer"))


def of_schedules(*names: ScheduleName) -> Only:
    """Mark an option that only some schedules have."""
    return Only(names, ("schedule",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every run has, whatever its optimizer."""

    epochs: Annotated[int, AT_LEAST_1] = 20
    """Passes over the training set."""
    warmup_epochs: float = 1.0
    """Epochs in which the learning rate rises to its peak; then it falls by its schedule."""
    batch_size: Annotated[int, AT_LEAST_1] = 100
    """Training examples per update of the weights."""
    seeds: Annotated[int, AT_LEAST_1] = 5
    """How many seeds to train, in one program; the table shows their mean and standard error."""
    first_seed: Annotated[int, A_SEED] = 0
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
        limits.check_ranges(self)
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
    adam, adamw: both are Adam with decoupled weight decay; adam has L2 with --decay-form l2.
    sgd, lars: heavy-ball momentum; nesterov: SGD with Nesterov momentum.
    hyperball: Adam with all norms fixed from the start, and relative steps.
    muon: Muon for hidden matrices, with steps scaled to the size of Adam's; Adam for all else.
    adam_h, muon_h: hidden matrices keep their initial norms; Adam for all else.
    adamp: Adam without the part of a step along weights whose norm the loss ignores.
    cpr: Adam whose norms may not pass the value at which their growth began to slow."""
    learning_rate: Annotated[float, AT_LEAST_0] = 1e-3
    """Peak of the learning rate: what to tune first."""
    rest_learning_rate: Annotated[float | None, AT_LEAST_0, of_optimizers("rest_rate")] = None
    """adam_h and muon_h: peak learning rate of embeddings, the last layer and all vectors.
    By default equal to --learning-rate. That one is a share of each matrix's norm: tune both."""
    weight_decay: Annotated[float, AT_LEAST_0] = 0.0
    """Weight decay of kernels and embeddings, multiplied by the learning rate; see --decay-form.
    muon applies it to the matrices that Muon trains.
    Optimizers that fix or bound norms have none."""
    decay_form: DecayForm | None = None
    """l2: weight decay is added to the gradient, before norms and momentum are taken.
    decoupled: it is a step of its own, as in AdamW.
    By default l2 for sgd, nesterov and lars, decoupled for the others."""
    decay_vectors: bool = False
    """Apply weight decay to biases and normalisation scales, too."""
    bias_optimizer: BiasOptimizerName | None = None
    """Another optimizer for biases and normalisation, at the same learning rate, without decay.
    By default the same optimizer trains them."""
    momentum: Annotated[float, BELOW_1, of_optimizers("momentum")] = 0.9
    """Momentum of sgd, nesterov, lars and sgd_lawn."""
    b1: Annotated[float, BELOW_1, of_optimizers("moments")] = 0.9
    """Decay rate of the first moment, for Adam and LAMB; not for muon, adam_h and muon_h."""
    b2: Annotated[float, BELOW_1, of_optimizers("moments")] = 0.999
    """Decay rate of the second moment, for Adam and LAMB."""
    adam_eps: Annotated[float, ABOVE_0, of_optimizers("eps")] = 1e-8
    """Epsilon of adam and adamw, beside the root of the second moment; LAMB and LAWN have 1e-6."""
    initial_rate: Annotated[float, AT_LEAST_0] = 0.0
    """Learning rate at the start of the warm-up."""
    final_rate: Annotated[float, AT_LEAST_0, of_schedules("polynomial", "cosine")] = 0.0
    """Schedules polynomial and cosine: learning rate at the end."""
    warmup_power: Annotated[float, ABOVE_0] = 1.0
    """Power of the warm-up: 1 is linear, a larger one starts more slowly."""
    schedule: ScheduleName = "polynomial"
    """How the learning rate falls after its warm-up.
    polynomial, cosine: smoothly, to --final-rate.
    The others multiply it by --decay-factor. step-wise: at the epochs of --decays-at.
    simple: once, late. plateau: when the training loss has not fallen for more than 10 epochs.
    abel: when the weight norm has fallen and risen again; needs --weight-decay above 0."""
    decay_power: Annotated[float, ABOVE_0, of_schedules("polynomial")] = 1.0
    """Schedule polynomial: power of the decay; 1 is linear, a larger one ends more slowly."""
    decay_epochs: Annotated[float | None, of_schedules("polynomial", "cosine")] = None
    """Schedules polynomial and cosine: epoch at which --final-rate is reached, and then kept.
    By default the last."""
    decay_factor: Annotated[
        float, BETWEEN_0_AND_1, of_schedules("step-wise", "simple", "plateau", "abel")
    ] = 0.1
    """Schedules step-wise, simple, plateau and abel: factor on the learning rate at each decay."""
    decays_at: Annotated[tuple[float, ...], of_schedules("step-wise")] = (1 / 3, 2 / 3)
    """Schedule step-wise: when it decays, as shares of all epochs, such as 0.3 0.6 0.8."""
    last_decay_at: Annotated[float, BETWEEN_0_AND_1, of_schedules("simple", "abel")] = 0.85
    """Schedules simple and abel: when the one late decay comes, as a share of all epochs."""
    average_over: Annotated[int, AT_LEAST_1, of_schedules("abel")] = 1
    """Schedule abel: epochs over which weight norms are averaged; more where they are noisy."""
    free_epochs: Annotated[float | SwitchName, AT_LEAST_0] = "flattening"
    """LAWN's switch: how many epochs to train freely before norms are fixed, or an automatic rule.
    flattening: stores the norms once the loss has fallen by 30% and predictions have become surer.
    If the loss then stalls, it stores them again when the gradient starts to grow relative to it.
    It fixes them when that growth has come to 25%.
    rise: the rise of the gradient alone.
    hold: when the median margin reaches 3; then adjusts the norms to keep it there.
    auto: when the running average of the median margin reaches 2.5."""
    norms_of: Annotated[float | None, of_optimizers("switch")] = None
    """If --free-epochs is a number: fix weights at the norms they had at this earlier epoch."""
    norms_scale: Annotated[float | None, ABOVE_0, of_optimizers("switch")] = None
    """Factor on the norms that the switch takes, before they are fixed; below 1: smaller logits."""
    project: Annotated[bool, of_optimizers("switch")] = True
    """Whether the gradient and the step are projected onto the tangent space, as in the paper.
    Without, norms are held by rescaling alone, in less time."""
    clip_norm: Annotated[float | None, ABOVE_0] = None
    """Clip the global norm of the gradient to this."""
    flood_level: Annotated[float, AT_LEAST_0] = 0.0
    """Flooding: keep the mean loss of a batch from falling below this; 0 turns it off."""
    checkpoint_dir: Path | None = None
    """Folder for checkpoints: the same command resumes from the last one, on any mesh."""
    checkpoint_every: Annotated[int, AT_LEAST_1] = 1
    """Epochs between checkpoints."""
    tensorboard: Path | None = None
    """Folder to write TensorBoard event files to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norms_of is not None and not self._earlier(self.norms_of):
            raise ValueError(
                f"norms_of={self.norms_of} must be an epoch from 0 to free_epochs="
                f"{self.free_epochs}, which must be a number."
            )
        self._check_optimizer()
        self._check_schedule()
        limits.check_owners(self)

    def _check_optimizer(self) -> None:
        """Refuse options that the optimizer does not have."""
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer={self.optimizer!r} must be one of {(*OPTIMIZERS,)}.")
        if isinstance(self.free_epochs, str) and self.free_epochs not in get_args(SwitchName):
            raise ValueError(
                f"free_epochs={self.free_epochs!r} must be a number, or one of"
                f" {get_args(SwitchName)}."
            )
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

    def _check_schedule(self) -> None:
        """Refuse a learning rate that cannot fall as it is to."""
        end = self.decay_epochs
        if end is not None and not self.warmup_epochs <= end <= self.epochs:
            raise ValueError(
                f"decay_epochs={end} must lie between warmup_epochs={self.warmup_epochs} and"
                f" epochs={self.epochs}: for a run as short, give both, or None for the last epoch."
            )
        if not all(a < b for a, b in itertools.pairwise((0, *self.decays_at, 1))):
            raise ValueError(f"decays_at={self.decays_at} must rise, all above 0 and below 1.")
        if self.schedule not in get_args(ScheduleName):
            raise ValueError(f"schedule={self.schedule!r} must be one of {get_args(ScheduleName)}.")
        if self.schedule in ADAPTIVE_SCHEDULES and self.optimizer not in WITH_DECAY:
            raise ValueError(
                f"schedule={self.schedule!r} with optimizer={self.optimizer!r}: it scales whole"
                " steps, and a fraction of one leaves the spheres; take a schedule that is known"
                f" beforehand, such as 'cosine', or one of {WITH_DECAY}."
            )
        for name in ("initial_rate", "warmup_power"):
            if not self.warmup_epochs and getattr(self, name) != limits.default(self, name):
                raise ValueError(
                    f"{name}={getattr(self, name)} with warmup_epochs={self.warmup_epochs}: there"
                    " is no warm-up; leave it out."
                )

    def _earlier(self, epoch: float) -> bool:
        """Tell whether norms can be those of an epoch."""
        return not isinstance(self.free_epochs, str) and 0 <= epoch <= self.free_epochs

    def config(self) -> dict[str, Any]:
        """Return all that shapes the result, for a record."""
        as_before = lambda name: name in LATER and getattr(self, name) == limits.default(self, name)
        given = dataclasses.asdict(self).items()
        return {k: v for k, v in given if k not in SHAPES_NOTHING and not as_before(k)}

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


# Records from before there were these options lack them, and so do records of their defaults.
LATER = (
    *limits.of(Options, Only),
    *("bias_optimizer", "decay_form", "decay_vectors", "initial_rate", "warmup_power", "schedule"),
    *("init_scale", "objective", "long_length", "long_epochs"),
)
