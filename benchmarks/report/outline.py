"""Which sections of RESULTS.md the studies fill, and which of the paper's tables they stand beside.

HR@10 and accuracy are of the last epoch, as the paper reports them, and of each seed's best epoch.
"""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.paper import reported
from benchmarks.paper.catalog import FOCAL, FOCAL_GAMMAS, OF_IMAGES, SMOOTHED, STUDIES
from benchmarks.report.sections import (
    NAMES,
    Column,
    Row,
    Section,
    Table,
    best_percent,
    last,
    last_percent,
)
from examples.training.options import OptimizerName

HIT_RATIO = (
    Column("last epoch", "hr_at_10", last_percent, 2),
    Column("best epoch", "hr_at_10", best_percent, 2),
)
ACCURACY = (
    Column("last epoch", "accuracy", last_percent, 2),
    Column("best epoch", "accuracy", best_percent, 2),
)
CALIBRATION = (
    Column("ECE", "ece", last, 3),
    Column("NLL", "nll", last, 3),
    Column("median margin", "held_out_margin_p50", last, 2),
    Column("training images in the flat zone, %", "flat_share", last_percent, 1),
)
BOTH: tuple[OptimizerName, ...] = ("adam", "adam_lawn")


def _title(study: str) -> str:
    base = STUDIES[study].base
    return f"{base.dataset}, batch size {base.batch_size:,}, {base.epochs} epochs"


def _five(
    source: str, columns: Sequence[Column], studies: Sequence[str], figures: reported.Figures
) -> Section:
    """The paper's five optimizers in each of some studies."""
    of = lambda study, optimizer: figures.get(study, {}).get(optimizer, "")
    rows = {study: [Row(NAMES[o], study, o, of(study, o)) for o in NAMES] for study in studies}
    return Section(source, columns, [Table(_title(study), rows[study]) for study in studies])


def _instead_of_decay(
    columns: Sequence[Column], studies: Sequence[str], figures: reported.Figures
) -> Section:
    """The paper's Table 2."""
    tables = []
    for study in studies:
        base, other = figures[study], reported.TABLE_2[study]
        rows = [
            Row("Adam, label smoothing 0.05", f"{study}-smoothed", "adam", other["smoothed"]),
            Row("Adam, weight decay", study, "adam", base["adam"]),
            Row("Adam, bounded weight norm", f"{study}-bounded", "adam", other["bounded"]),
            Row("Adam-LAWN", study, "adam_lawn", base["adam_lawn"]),
        ]
        tables.append(Table(_title(study), rows))
    return Section("Table 2", columns, tables)


def _focal(columns: Sequence[Column], studies: Sequence[str]) -> Section:
    """The paper's Table 5."""
    tables = []
    for study in (f"{name}-focal-{gamma:g}" for name in studies for gamma in FOCAL_GAMMAS):
        rows = [Row(NAMES[o], study, o, reported.TABLE_5[o][study]) for o in BOTH]
        tables.append(Table(f"{_title(study)}, gamma {STUDIES[study].base.gamma:g}", rows))
    return Section("Table 5", columns, tables)


def _calibration() -> Section:
    """The paper's Table 6, at the batch size that its text is about most."""
    tables = []
    for dataset, figures in reported.TABLE_6.items():
        study = f"{dataset}-4k"
        rows = [Row(NAMES[o], study, o, figures[o]) for o in BOTH]
        tables.append(Table(_title(study), rows))
    return Section("Table 6", CALIBRATION, tables)


def _of(dataset: str) -> list[str]:
    return [study for study in reported.TABLE_7 if study.startswith(f"{dataset}-")]


def _full(figures: reported.Figures) -> reported.Figures:
    return {f"{study}-full": column for study, column in figures.items()}


SECTIONS = {
    "movielens-100k": _five("Table 9", HIT_RATIO, [*reported.TABLE_9], reported.TABLE_9),
    "movielens-100k-40": _five(
        "Table 9",
        HIT_RATIO,
        ["movielens-100k-10k-40"],
        {"movielens-100k-10k-40": reported.TABLE_9["movielens-100k-10k"]},
    ),
    "movielens-100k-full": _five(
        "Table 9", HIT_RATIO, [*_full(reported.TABLE_9)], _full(reported.TABLE_9)
    ),
    "movielens-1m": _five("Table 10", HIT_RATIO, [*reported.TABLE_10], reported.TABLE_10),
    "pinterest-20": _five("Table 11", HIT_RATIO, [*reported.TABLE_11], reported.TABLE_11),
    "instead-of-decay": _instead_of_decay(HIT_RATIO, SMOOTHED, reported.TABLE_10),
    "focal": _focal(HIT_RATIO, FOCAL),
    "cifar10-small": _five("", (*ACCURACY, *CALIBRATION), ["cifar10-small"], {}),
    "cifar10": _five("Table 7", ACCURACY, _of("cifar10"), reported.TABLE_7),
    "cifar100": _five("Table 7", ACCURACY, _of("cifar100"), reported.TABLE_7),
    "calibration": _calibration(),
    "cifar-instead-of-decay": _instead_of_decay(ACCURACY, OF_IMAGES, reported.TABLE_7),
    "cifar-focal": _focal(ACCURACY, OF_IMAGES),
}


class Comparison(NamedTuple):
    """Sections that compare batch sizes, for the pictures.

    Attributes:
      by_batch: the section of RESULTS.md with the score against batch size.
      by_free: the same against free epochs.
      pictures: what the names of the files start with.
      panels: sections by what a panel is called.
    """

    by_batch: str
    by_free: str
    pictures: str
    panels: dict[str, Section]


COMPARISONS = (
    Comparison(
        "figure-2c",
        "figure-4b",
        "",
        {
            "MovieLens-100k": SECTIONS["movielens-100k"],
            "MovieLens-100k, a finer grid": SECTIONS["movielens-100k-40"],
            "MovieLens-100k, the paper's epochs": SECTIONS["movielens-100k-full"],
            "MovieLens-1M": SECTIONS["movielens-1m"],
            "Pinterest": SECTIONS["pinterest-20"],
        },
    ),
    Comparison(
        "figure-2ab",
        "figure-4a",
        "images-",
        {
            "CIFAR-10, 2,500 images": SECTIONS["cifar10-small"],
            "CIFAR-10": SECTIONS["cifar10"],
            "CIFAR-100": SECTIONS["cifar100"],
        },
    ),
)
