"""Studies: what each optimizer is tuned over, as data, and which setting it chooses.

A `Comparison` chooses nothing: it shows what each of its settings does. A `Search` draws settings
from ranges, as many of each optimizer, and has scores to choose by that are not those reported.

The widest sets are of the same size, or larger for what Adam may do in place of decay. What is
measured after the last epoch decides: of recommenders on the held-out items themselves, of images
on training images that were held out. Base optimizers choose twice: over the paper's weight decays,
or some of them, and over a wider set that holds these. So does LAWN: over free phases, and with the
automatic switch over peaks alone.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from scipy.stats import qmc

from benchmarks.paper.spaces import Point, Space, options_of
from benchmarks.tools.records import read_bits
from examples import cifar, imagenet, lm, ncf, small, training
from examples.results import records
from examples.tasks.images import data
from examples.training.options import SHAPES_NOTHING
from examples.training.switching import SWITCHES
from examples.training.traits import WITH_DECAY, WITH_SWITCH, OptimizerName, SwitchName

BITS_OF_A_GUESS = 8.0  # Per byte, all bytes being as likely.
TUNING_SEED = 1_000_000  # No seed serves both to tune and to report.
REPORTING_SEEDS = (0, 1, 2)
FREE = "free epochs"  # What LAWN chooses from, beside the peak alone with an automatic switch.
AUTOMATIC: SwitchName = "flattening"  # LAWN's switch that leaves nothing but the peak to choose.

StudyConfig = ncf.Config | cifar.Config | imagenet.Config
AnyConfig = StudyConfig | small.Config | lm.Config


class Detail(NamedTuple):
    """Says what each held-out example scores, for searches: one half to choose by, one to report.

    The task's `score_examples` says it.

    Attributes:
      read: from a record to the scores to choose by and those to report, `(n,)` each; more is
        better.
      what: the mean of the scores in words.
      sign: 1, or -1 where the scores are losses turned round, which tables turn back.
      near: a difference of means that hardly matters.
    """

    read: Callable[[records.Record], tuple[np.ndarray, np.ndarray]]
    what: str
    sign: int
    near: float


class Example(NamedTuple):
    """Says what runs of one example have in common.

    Attributes:
      load: the task of a run.
      score: what settings are chosen by.
      ties: what decides between equals: its name, and whether more is better (1) or less (-1).
      curves: what is recorded of every epoch, of scores to choose by where there are such.
      detail: what each held-out example scores, None where no search has such runs.
      of_run: the task of a run from one that is loaded, where options of its network are drawn, and
        where its data come from if they are not in the task, or change.
    """

    load: Callable[[Any], training.Task]
    score: str
    ties: tuple[str, int]
    curves: tuple[str, ...]
    detail: Detail | None = None
    of_run: Callable[[Any, Any], tuple[training.Task, Any]] = lambda task, run: (task, None)


def _of_hits(run: records.Record) -> tuple[np.ndarray, np.ndarray]:
    """Return 100 for each of the examples that are right, 0 for the others."""
    validation, test = (100.0 * read_bits(run[name]) for name in ("validation_hits", "hits"))
    return validation, test


def _of_pieces(run: records.Record) -> tuple[np.ndarray, np.ndarray]:
    """Return the bits per byte of every other piece, negative; those of a guess if not finite."""
    bits = np.nan_to_num(run["pieces"], nan=BITS_OF_A_GUESS, posinf=BITS_OF_A_GUESS)
    return -bits[::2], -bits[1::2]


IMAGE_CURVES = (
    *("accuracy", "ece", "nll", "held_out_margin_p50", "train_loss", "margin_p50", "flat_share"),
)

EXAMPLES: Mapping[type[AnyConfig], Example] = {
    ncf.Config: Example(
        ncf.load,
        "hr_at_10",
        ("ndcg_at_10", 1),
        ("hr_at_10", "ndcg_at_10", "validation_hr_at_10", "train_loss", "margin_p50"),
        Detail(_of_hits, "HR@10 (%)", 1, 1.0),
    ),
    lm.Config: Example(
        lm.load,
        "bits_per_byte",
        ("held_out_loss", -1),
        ("held_out_loss", "bits_per_byte", "train_loss", "margin_p50"),
        Detail(_of_pieces, "bits per byte", -1, 0.02),
        of_run=lambda task, run: (task, lm.lengthening(run, task)),
    ),
    small.Config: Example(
        small.load,
        "accuracy",
        ("validation_loss", -1),
        ("accuracy", "validation_accuracy", "nll", "train_loss", "margin_p50"),
        Detail(_of_hits, "accuracy (%)", 1, 1.0),
    ),
    cifar.Config: Example(
        cifar.make_task,
        "accuracy",
        ("nll", -1),
        IMAGE_CURVES,
        of_run=lambda task, run: (dataclasses.replace(task, **run.of_task()), None),
    ),
    imagenet.Config: Example(
        lambda config: imagenet.make_source(config)[0],
        "accuracy",
        ("nll", -1),
        IMAGE_CURVES,
        of_run=lambda task, run: imagenet.make_source(run),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Says what is run, of one example; each of its kinds below says which settings.

    Attributes:
      name: as `--study` takes it, and as its records have it.
      base: what all its runs share; of a study, those that are reported.
    """

    name: str
    base: AnyConfig

    @property
    def example(self) -> Example:
        """Return what its runs have in common."""
        return EXAMPLES[type(self.base)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study(Experiment):
    """Says what each optimizer is tuned over, on one dataset at one batch size.

    Attributes:
      learning_rates: peaks to choose from, log-spaced, as many for each optimizer.
      free_epochs: to choose from for LAWN, as many as the base optimizers have weight decays.
      decays: the sets of weight decays, by name, each within the next.
      sgd_decays: the same for SGD, to whose gradient decay is added; None for the same ones.
      tuning: what else the base is while settings are tried, such as fewer epochs, of which
        warm-up and free phase are then the same share.
      paper: what the paper reports of its optimizers, where it does.
    """

    base: StudyConfig
    learning_rates: Mapping[OptimizerName, Sequence[float]]
    free_epochs: Sequence[float]
    decays: Mapping[str, Sequence[float]]
    sgd_decays: Mapping[str, Sequence[float]] | None = None
    tuning: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    paper: Mapping[OptimizerName, str] = dataclasses.field(default_factory=dict)

    @property
    def switch(self) -> str:
        """Return the library's name for the automatic switch."""
        return SWITCHES[AUTOMATIC].make.__name__

    def grids(self, optimizer: OptimizerName) -> dict[str, list[StudyConfig]]:
        """Return the settings by what an optimizer may choose from."""
        if optimizer in WITH_DECAY:
            return {
                name: self._settings(optimizer, "weight_decay", values)
                for name, values in self.decays_of(optimizer).items()
            }
        return {
            FREE: self._settings(optimizer, "free_epochs", self.free_epochs),
            self.switch: self._settings(optimizer, "free_epochs", [AUTOMATIC]),
        }

    def to_try(self, optimizer: OptimizerName) -> list[list[StudyConfig]]:
        """Return all its settings: the grids that lie within no other."""
        grids = self.grids(optimizer).values()
        return [grid for grid in grids if not any(set(grid) < set(other) for other in grids)]

    def decays_of(self, optimizer: OptimizerName) -> Mapping[str, Sequence[float]]:
        """Return the sets of weight decays that it may choose from."""
        own = self.sgd_decays if optimizer == "sgd" else None
        return own or self.decays

    def _settings(
        self, optimizer: OptimizerName, hyperparameter: str, values: Sequence[float | str]
    ) -> list[StudyConfig]:
        """Return one for each learning rate and value of the hyperparameter."""
        points: Any = itertools.product(self.learning_rates[optimizer], values)
        return [
            dataclasses.replace(
                self.base,
                optimizer=optimizer,
                seeds=1,
                learning_rate=rate,
                **{"free_epochs": AUTOMATIC, hyperparameter: value},
            )
            for rate, value in points
        ]

    def tried(self, setting: StudyConfig) -> StudyConfig:
        """Return the run that decides about a setting."""
        epochs = self.tuning.get("epochs", setting.epochs)
        cut = lambda x: x * epochs / setting.epochs
        free = setting.free_epochs
        return dataclasses.replace(
            setting,
            **{"warmup_epochs": cut(setting.warmup_epochs), **self.tuning},
            free_epochs=free if isinstance(free, str) else cut(free),
            first_seed=TUNING_SEED,
        )

    def choose(
        self, settings: Sequence[StudyConfig], found: Mapping[str, records.Record]
    ) -> StudyConfig | None:
        """Return the best setting, the first of equals; None where a run is missing."""
        runs = [found.get(identity(self.tried(setting).config())) for setting in settings]
        ties, sign = self.example.ties
        finals = [run["final"] for run in runs if run]
        # What was not finite is None in a record, and loses.
        tie = lambda final: -math.inf if final[ties] is None else sign * final[ties]
        scores = [(final[self.example.score], tie(final)) for final in finals]
        return settings[scores.index(max(scores))] if len(scores) == len(runs) else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison(Experiment):
    """Says which settings are compared as they are: each is reported, and none is chosen.

    Attributes:
      groups: settings by what they show; those of a group have the task in common.
      norms: whether the norms of all layers are recorded, too.
      seeds: of each setting.
    """

    groups: Mapping[str, Sequence[AnyConfig]]
    norms: bool = False
    seeds: Sequence[int] = REPORTING_SEEDS

    def runs(self) -> list[AnyConfig]:
        """Return all its runs."""
        return [
            run
            for group in self.groups.values()
            for setting in group
            for run in reported(setting, self.seeds)
        ]

    def among(self, found: Sequence[records.Record]) -> list[records.Record]:
        """Return its runs, of all that were found; none where one is missing."""
        by_run, wanted = index(found), [identity(run.config()) for run in self.runs()]
        return [by_run[run] for run in wanted] if by_run.keys() >= {*wanted} else []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(Experiment):
    """Says which settings are drawn, as many of each optimizer; a recommender validates.

    Attributes:
      spaces: by what is compared: its settings but for what is drawn, and the ranges of that, by
        option or by a name in `DERIVED`.
      trials: settings per space and search, a power of two.
      searches: how often it is done, with other settings and another seed of the weights.
      what: the task in words, for those that RESULTS.md shows.
    """

    spaces: Mapping[str, tuple[AnyConfig, Space]]
    trials: int = 16
    searches: int = 3
    what: str = ""

    def settings(self, space: str, search: int) -> list[AnyConfig]:
        """Return the settings of one search."""
        return list(self.points(space, search))

    def points(self, space: str, search: int) -> dict[AnyConfig, Point]:
        """Return what is drawn by the setting: a scrambled Sobol sequence, each setting once."""
        setting, ranges = self.spaces[space]
        unit = qmc.Sobol(len(ranges), seed=search).random(self.trials)
        shared: dict[str, Any] = {"seeds": 1, "first_seed": TUNING_SEED + search}
        points = [
            {
                name: drawn.at(share)
                for (name, drawn), share in zip(ranges.items(), row, strict=True)
            }
            for row in unit
        ]
        return {
            dataclasses.replace(setting, **shared, **options_of(point)): point for point in points
        }


def reported(setting: AnyConfig, seeds: Sequence[int] = REPORTING_SEEDS) -> list[AnyConfig]:
    """Return the runs by which a setting is reported."""
    return [dataclasses.replace(setting, seeds=1, first_seed=seed) for seed in seeds]


def with_files(run: AnyConfig, data_dir: Path | None) -> AnyConfig:
    """Return a run whose data come from a folder, where it reads files."""
    return run if isinstance(run, small.Config) else dataclasses.replace(run, data_dir=data_dir)


def index(found: Sequence[records.Record]) -> dict[str, records.Record]:
    """Return records by what they are of, the first of each."""
    return {identity(record["config"]): record for record in reversed(found)}


def program(run: AnyConfig) -> str:
    """Return what runs have in common that one compiled program can train side by side."""
    hyperparameters = run.hyperparameters()
    given = [name for name, value in hyperparameters._asdict().items() if value is not None]
    own = {*hyperparameters._fields, "first_seed"}
    config = {name: value for name, value in run.config().items() if name not in own}
    return json.dumps([config, given, run.static_options(1).switch])


def identity(config: Mapping[str, Any]) -> str:
    """Return what tells one run from another: all but how many seeds ran beside it."""
    kind: type[AnyConfig] = ncf.Config
    if "epoch_tokens" in config:
        kind = lm.Config
    elif "noise" in config:
        kind = small.Config
    elif "image_size" in config:
        kind = imagenet.Config
    elif config["dataset"] in get_args(data.DatasetName):
        kind = cifar.Config
    # An option that a record is too old to have was its default.
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    left_out = {*SHAPES_NOTHING, "seeds"}
    if config["optimizer"] not in WITH_SWITCH:
        left_out.add("free_epochs")  # Given or not, it has none.
    names = sorted(defaults.keys() - left_out)
    return json.dumps({name: config.get(name, defaults[name]) for name in names})
