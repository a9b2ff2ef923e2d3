"""Makes the tables of what a step and an epoch cost."""

from collections.abc import Sequence

import numpy as np

from benchmarks.measure import epoch, images, optimizer_step, training_step
from benchmarks.report import goals
from benchmarks.report.part import Part
from benchmarks.tools.optimizers import OPTIMIZERS
from benchmarks.tools.records import records_of
from examples.results import tables
from examples.results.records import Record

FOLDERS = ("overhead", "epoch-time", "image-speed")


def part() -> Part:
    """Return all tables of costs."""
    found = load()
    return Part(
        sections(found), missing=goals.missing(found), of_readme={"costs": beside_adam(found)}
    )


def load() -> list[Record]:
    """Return all records of costs."""
    return [record for folder in FOLDERS for record in records_of(folder)]


def sections(found: Sequence[Record]) -> dict[str, str]:
    """Return the sections of RESULTS.md, by name."""
    of = lambda benchmark: [record for record in found if record["benchmark"] == benchmark]
    return {
        "goals": goals.table(found),
        "optimizer-step": steps(found, goals.CPU, goals.GPU),
        "compiled": compiled(found),
        "epoch-time": epoch.table(of("epoch-time")),
        "image-speed": image_speed(of("image-speed")),
    }


# Where a tree, or the training step of a model, stands beside Adam's in the README.
BESIDE_ADAM: dict[str, goals.Key] = {
    "a step on one matrix of 134 million": ("block", 0),
    "on GPT-2's tree": ("gpt2", 0),
    "on ResNet-50's": ("resnet50", 0),
    "on VGG-19's": ("vgg19", 0),
    "on a small recommender's": ("ncf", 0),
    "a training step of that recommender at batch 1,000": ("ncf", 1_000),
    "at batch 10,000": ("ncf", 10_000),
}


def beside_adam(found: Sequence[Record]) -> str:
    """Return the time of Adam-LAWN's steps on the GPU of the last records, as a ratio to Adam's."""
    here = [record for record in found if goals.GPU.has(record)]
    runs = goals.index(here)
    timed = {what: runs[key]["adam_lawn"] for what, key in BESIDE_ADAM.items()}
    rows = [(what, optimizer_step.ratio(run), run["device"]) for what, run in timed.items()]
    for run in here:
        if run["benchmark"] == "image-speed":
            lawn, adam = (np.array(run["seconds"][name]) for name in (images.LAWN, images.ADAM))
            ratios = lawn / adam
            spread = {"time": np.median(ratios), "low": ratios.min(), "high": ratios.max()}
            what = f"a training step of {run['model'].upper()} at batch {run['batch_size']:,}"
            rows.append((what, optimizer_step.ratio(spread), run["device"]))
    return tables.markdown(("", "time to Adam's", "on"), rows)


def steps(found: Sequence[Record], *devices: goals.Device) -> str:
    """Return a table per tree and model, of what was run on some devices."""
    parts = []
    of_kind = (record for device in devices for record in found if device.has(record))
    timed = [record for record in of_kind if record["benchmark"] in ("overhead", "training_step")]
    for here in tables.group(timed, lambda record: record["device"]).values():
        indexed = (goals.index(here, command_buffers=given) for given in (True, False))
        for (_, batch_size), run in (item for runs in indexed for item in runs.items()):
            program = training_step if batch_size else optimizer_step
            rows = list(run.values())
            parts += [program.heading(rows), program.table(rows)]
    return "\n\n".join(parts)


def compiled(found: Sequence[Record]) -> str:
    """Return a table per device of what was compiled and not run: bytes (kernels, sums)."""
    unrun = [r for r in found if r["backend"].startswith(optimizer_step.COMPILED)]
    by_device = tables.group(unrun, lambda record: record["device"])
    return "\n\n".join(f"{name}.\n\n{_compiled(run)}" for name, run in by_device.items())


def _compiled(found: Sequence[Record]) -> str:
    runs = goals.index(found)
    names = [name for name in OPTIMIZERS if any(name in run for run in runs.values())]
    rows = []
    for name in names:
        of_trees = [run[name] for run in runs.values() if name in run]
        cells = [
            f"{r['bytes']:.0f} ({_counts(r)})" if r else ""
            for r in (run.get(name) for run in runs.values())
        ]
        rows.append((name, str(of_trees[0]["floor"] or ""), *cells))
    titles = [
        f"{tree}, {next(iter(run.values()))['leaves']} leaves" for (tree, _), run in runs.items()
    ]
    return tables.markdown(("optimizer", "floor", *titles), rows)


def _counts(run: Record) -> str:
    """Return kernels and sums, and on several devices the exchanges between them."""
    counts = (run["kernels"], run["reductions"], run.get("exchanges"))
    return ", ".join(str(count) for count in counts if count is not None)


def image_speed(found: Sequence[Record]) -> str:
    """Return a table per device."""
    parts = []
    for title, rows in tables.group(found, images.heading).items():
        parts += [title, images.table(rows)]
    return "\n\n".join(parts)
