"""Shows when weight norms bounce, and what waiting for it brings (arXiv 2103.12682)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.paper import studies
from benchmarks.paper.comparisons import BOUNCING
from benchmarks.paper.studies import Comparison
from benchmarks.report.part import Missing, Part, sweep_command
from benchmarks.report.provenance import provenance
from benchmarks.tools.records import records_of
from examples.results import norms, plots, tables
from examples.results.records import Record

PANELS = {
    "accuracy": "held-out accuracy",
    "train_loss": "training loss",
    norms.TOTAL: "norm of all layers",
}

Runs = Mapping[str, Sequence[Record]]  # By setting, one per seed.


def part() -> Part:
    """Return the pictures and tables of all these comparisons."""
    loaded = load()
    return Part(sections(loaded), missing=missing(loaded), draw=lambda folder: draw(folder, loaded))


def load() -> dict[str, Runs]:
    """Return the runs by comparison and setting; nothing where one is missing."""
    loaded: dict[str, Runs] = {}
    for comparison in BOUNCING:
        if runs := comparison.among(records_of(comparison.name)):
            named = zip(_names(comparison), map(norms.with_total, runs), strict=True)
            by_name = tables.group(named, lambda pair: pair[0])
            loaded[comparison.name] = {
                name: [run for _, run in pairs] for name, pairs in by_name.items()
            }
    return loaded


def sections(loaded: Mapping[str, Runs]) -> dict[str, str]:
    """Return the pictures and the table by comparison, "" where a run is missing."""
    return {c.name: page(c, loaded.get(c.name, {})) for c in BOUNCING}


def page(comparison: Comparison, runs: Runs) -> str:
    """Return the pictures of a comparison and its figures."""
    if not runs:
        return ""
    pictures = [
        f"![accuracy, loss and norms over {length} epochs](../docs/{path.name})"
        for length, path in _pictures(comparison.name, Path(), runs).items()
    ]
    rows = [
        (
            name,
            tables.mean_and_error(100 * tables.final(of, "accuracy"), digits=1),
            _bounces(of),
            tables.mean_and_error(np.array([_grown(run) for run in of]), digits=2),
        )
        for name, of in runs.items()
    ]
    columns = ("setting", "accuracy", "first bounce at epoch", "norm, first epoch = 1")
    every = [run for of in runs.values() for run in of]
    text = (
        "Accuracy in percent on training images that were held out, and the norm of all layers"
        f" together, after the last epoch: mean ± standard error of {len(comparison.seeds)} seeds."
        " First bounce: of each seed; - where the norm never falls and rises again."
        f" {provenance(every)}."
    )
    return "\n\n".join([*pictures, text, tables.markdown(columns, rows)])


def missing(loaded: Mapping[str, Runs]) -> list[Missing]:
    """Return what was not run."""
    return [
        Missing(
            "when weight norms bounce",
            "",
            sweep_command(c.name),
        )
        for c in BOUNCING
        if c.name not in loaded
    ]


def draw(folder: Path, loaded: Mapping[str, Runs]) -> None:
    """Draw a picture for each length of training."""
    for name, runs in loaded.items():
        for length, path in _pictures(name, folder, runs).items():
            as_long = {k: of for k, of in runs.items() if _length(of[0]) == length}
            plots.draw(path, {f"{length} epochs": as_long}, PANELS)


def _names(comparison: Comparison) -> list[str]:
    """Return what each run's setting is called: its group, and the peak where that differs."""
    return [
        f"{group}, peak {setting.learning_rate:g}" if len(settings) > 1 else group
        for group, settings in comparison.groups.items()
        for setting in settings
        for _ in studies.reported(setting, comparison.seeds)
    ]


def _pictures(name: str, folder: Path, runs: Runs) -> dict[int, Path]:
    """Return where pictures are, by the number of epochs that they show."""
    lengths = sorted({_length(of[0]) for of in runs.values()})
    return {length: folder / f"{name}-{length}.png" for length in lengths}


def _length(run: Record) -> int:
    return len(run["curve"]["train_loss"])


def _bounces(runs: Sequence[Record]) -> str:
    """Say at which epoch the norm of each run bounces first."""
    found = [norms.bounces(np.array(run["curve"][norms.TOTAL])) for run in runs]
    return ", ".join(str(epochs[0] + 1) if epochs else "-" for epochs in found)


def _grown(run: Record) -> float:
    """Return the norm of all layers after the last epoch, that after the first being 1."""
    norm = run["curve"][norms.TOTAL]
    return norm[-1] / norm[0]
