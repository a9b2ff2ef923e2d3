"""Tables of what a step costs, from the records of optimizer_step and training_step."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import forms, optimizer_step, training_step
from benchmarks.tools import trees
from benchmarks.tools.folders import NOT_YET_RUN
from examples.results import tables
from examples.results.records import Record, read_records

BACKENDS = {
    "cpu": "On CPU",
    "gpu": "On a GPU",
    optimizer_step.COMPILED: "Compiled for a GPU, not run",
}
# Which trees, and which batch sizes of which models, a backend is meant to show.
TREES = {
    "cpu": ("ncf", "vgg19", "resnet50", "block"),
    "gpu": tuple(trees.TREES),
    optimizer_step.COMPILED: tuple(trees.TREES),
}
BATCHES: dict[str, dict[str, tuple[int, ...]]] = {
    "cpu": {"ncf": (1_000, 10_000)},
    # 4,096 photographs and what ResNet-50 makes of them do not fit on one GPU.
    "gpu": {"ncf": (1_000, 10_000), "vgg19": (16, 256, 4096), "resnet50": (16, 256)},
    optimizer_step.COMPILED: {},
}
COMMANDS = {
    "cpu": ("python -m benchmarks.measure.optimizer_step", "overhead.jsonl"),
    "gpu": ("python -m benchmarks.measure.optimizer_step", "overhead.jsonl"),
    optimizer_step.COMPILED: (
        "JAX_PLATFORMS=cpu python -m benchmarks.measure.optimizer_step --compile-for h200.txtpb",
        "compiled-h200.jsonl",
    ),
}
INSTEAD = {
    "gpu": optimizer_step.COMPILED
}  # What shows a goal's figure until a backend has its own.

Key = tuple[str, str, int]  # The backend, the tree or model, the batch size (0 of a tree alone).
Runs = dict[Key, dict[str, Record]]  # By optimizer.


class Goal(NamedTuple):
    """A ratio that the project set out to reach.

    Attributes:
      what: in words.
      most: what it may be at most, by backend.
      of: the ratio that some runs on one backend show; None where they are not made.
    """

    what: str
    most: dict[str, float]
    of: Callable[[Runs, str], float | None]


def sections(root: Path, results: Path) -> Iterator[tuple[Path, str, str]]:
    """`(document, section, body)` of all that the newest folder of records in `root` tells."""
    folder = sorted(root.glob("????-??-??-overhead"))[-1]
    found = [record for file in sorted(folder.glob("*.jsonl")) for record in read_records(file)]
    yield results, "overhead", report(index(found), folder)
    account = folder / "README.md"
    for name, compare in (("history", compare_history), ("history-compiled", compare_compiled)):
        files = sorted((folder / name).glob("*.jsonl"))
        if files:
            yield account, name, compare({file.stem: read_records(file) for file in files})
    for file in sorted((folder / "forms").glob("*.jsonl")):
        yield account, file.stem, forms.table(read_records(file))


def index(found: Sequence[Record]) -> Runs:
    """The last record of each optimizer on each tree or model."""
    runs: Runs = {}
    for record in found:
        name = record["tree"] if record["benchmark"] == "overhead" else record["workload"]
        key = record["backend"], name, record.get("batch_size", 0)
        runs.setdefault(key, {})[record["optimizer"]] = record
    return runs


def report(runs: Runs, folder: Path) -> str:
    """The goals, then each backend's tables and the commands for what it lacks."""
    parts = [goals(runs)]
    for backend, title in BACKENDS.items():
        parts += [f"### {title}", *_tables(runs, backend), *_missing(runs, backend, folder)]
    return "\n\n".join(parts)


def goals(runs: Runs) -> str:
    """What constrained Adam-LAWN was to reach, and what it reaches."""
    rows = [
        (goal.what, name, f"{goal.most[backend]:.2f}", _shown(goal, runs, backend))
        for backend, name in BACKENDS.items()
        for goal in GOALS
        if backend in goal.most
    ]
    columns = ("of Adam-LAWN, constrained", "where", "at most", "measured")
    return tables.markdown(columns, rows)


def compare_history(history: dict[str, list[Record]]) -> str:
    """One row a form and tree, of Adam-LAWN."""
    shown = ("bytes", "to Adam", "temporary (in a loop)", "kernels", "sums", "time to Adam")
    rows = []
    for form, found in history.items():
        for (_, tree, _), run in index(found).items():
            lawn, adam = run["adam_lawn"], run["adam"]
            cells = dict(
                zip(optimizer_step.COLUMNS, optimizer_step.cells(lawn, adam["bytes"]), strict=True)
            )
            free = optimizer_step.ratio(run["adam_lawn, free"]) if "adam_lawn, free" in run else ""
            rows.append((form, tree, *(cells[c] for c in shown), free, lawn["device"]))
    columns = ("form", "tree", *shown, "free phase", "machine")
    return tables.markdown(columns, rows)


def compare_compiled(history: dict[str, list[Record]]) -> str:
    """One row a form, tree and LAWN, of programs that were compiled and not run."""
    rows = []
    for form, found in history.items():
        for (_, tree, _), run in index(found).items():
            for name in [name for name in run if name != "adam"]:
                about, lawn, adam = (form, tree), run[name], run["adam"]
                rows.append((*about, *optimizer_step.counted(lawn, adam["bytes"]), lawn["device"]))
    return tables.markdown(("form", "tree", *optimizer_step.COUNTED, "compiled for"), rows)


def _tables(runs: Runs, backend: str) -> list[str]:
    parts = []
    for (on, _, batch_size), run in runs.items():
        if on == backend:
            rows = list(run.values())
            if batch_size:
                parts += [training_step.heading(rows), training_step.table(rows)]
            else:
                parts += [optimizer_step.heading(rows), optimizer_step.table(rows)]
    return parts


def _missing(runs: Runs, backend: str, folder: Path) -> list[str]:
    """What is not yet run, each with the command that runs it."""
    out = f"benchmarks/records/{folder.name}"
    commands = []
    left = [tree for tree in TREES[backend] if (backend, tree, 0) not in runs]
    if left:
        command, file = COMMANDS[backend]
        commands.append(f"{command} --trees {' '.join(left)} --out {out}/{file}")
    for name, sizes in BATCHES[backend].items():
        left = [str(size) for size in sizes if (backend, name, size) not in runs]
        if left and name in training_step.WORKLOADS:
            commands.append(
                f"python -m benchmarks.measure.training_step --workloads {name}"
                f" --batches {' '.join(left)} --out {out}/training_step.jsonl"
            )
    return [f"{NOT_YET_RUN.capitalize()}: `{command}`" for command in commands]


def _shown(goal: Goal, runs: Runs, backend: str) -> str:
    """What was run; where nothing was, what a program compiled for such a device says."""
    for where, remark in ((backend, ""), (INSTEAD.get(backend), ", compiled and not run")):
        ratio = goal.of(runs, where) if where else None
        if ratio is not None:
            return f"{ratio:.2f}{remark}"
    return NOT_YET_RUN


def _worst(of: Callable[[Record, Record], float]) -> Callable[[Runs, str], float | None]:
    """The largest ratio of Adam-LAWN's record and Adam's, over all trees."""

    def worst(runs: Runs, backend: str) -> float | None:
        pairs = [
            (run["adam_lawn"], run["adam"])
            for (on, _, batch_size), run in runs.items()
            if on == backend and not batch_size and {"adam_lawn", "adam"} <= run.keys()
        ]
        return max((of(*pair) for pair in pairs), default=None)

    return worst


def _time(name: str, batch_size: int = 0) -> Callable[[Runs, str], float | None]:
    """The time to Adam's, on one tree or in one training step."""

    def time(runs: Runs, backend: str) -> float | None:
        lawn = runs.get((backend, name, batch_size), {}).get("adam_lawn", {})
        return lawn.get("time")

    return time


def _beyond_adam(lawn: Record, adam: Record) -> float:
    """Temporary memory beyond Adam's, in largest leaves of float32."""
    more = (lawn["temporary"] - adam["temporary"]) * lawn["parameters"]
    return more / (4 * lawn["largest_leaf"])


GOALS = (
    Goal(
        "bytes of a step to Adam's, on the worst tree",
        {"cpu": 2.0, "gpu": 1.75},
        _worst(lambda lawn, adam: lawn["bytes"] / adam["bytes"]),
    ),
    Goal(
        "temporary memory beyond Adam's, in largest leaves, on the worst tree",
        {"cpu": 1.0, "gpu": 1.0},
        _worst(_beyond_adam),
    ),
    Goal("time of a step to Adam's: block", {"cpu": 2.5, "gpu": 1.75}, _time("block")),
    Goal("time of a step to Adam's: ResNet-50's tree", {"gpu": 1.5}, _time("resnet50")),
    *(
        Goal(
            f"time of a training step to Adam's: {title} at batch {size:,}",
            {"gpu": most},
            _time(name, size),
        )
        for title, name, size, most in (
            ("ResNet-50", "resnet50", 256, 1.01),
            ("VGG-19", "vgg19", 4096, 1.01),
            ("NCF", "ncf", 1_000, 1.05),
            ("ResNet-50", "resnet50", 16, 1.10),
        )
    ),
)
