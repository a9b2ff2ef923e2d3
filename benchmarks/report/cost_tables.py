"""Makes the tables of what a step and an epoch cost."""

from collections.abc import Sequence

from benchmarks.measure import epoch, images, optimizer_step, training_step
from benchmarks.report import goals
from benchmarks.tools.records import records_of
from examples.results import tables
from examples.results.records import Record

FOLDERS = ("overhead", "epoch-time", "image-speed")


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
    names = dict.fromkeys(name for run in runs.values() for name in run)
    rows = []
    for name in names:
        of_trees = [run[name] for run in runs.values() if name in run]
        cells = [
            f"{r['bytes']:.0f} ({r['kernels']}, {r['reductions']})" if r else ""
            for r in (run.get(name) for run in runs.values())
        ]
        rows.append((name, str(of_trees[0]["floor"] or ""), *cells))
    titles = [
        f"{tree}, {next(iter(run.values()))['leaves']} leaves" for (tree, _), run in runs.items()
    ]
    return tables.markdown(("optimizer", "floor", *titles), rows)


def image_speed(found: Sequence[Record]) -> str:
    """Return a table per device."""
    parts = []
    for title, rows in tables.group(found, images.heading).items():
        parts += [title, images.table(rows)]
    return "\n\n".join(parts)
