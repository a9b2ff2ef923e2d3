"""The paper's Table 1 in RESULTS.md: ImageNet by the settings of `examples.imagenet`, untuned.

No sweep stands behind it, for a run takes an accelerator hours: each row is a named setting, whose
runs are appended to one folder of records, a seed a run.
"""

from collections.abc import Sequence

from benchmarks.paper import reported
from benchmarks.report.sections import provenance
from benchmarks.tools import folders
from benchmarks.tools.folders import NOT_YET_RUN
from examples.results import tables
from examples.results.records import Record
from examples.tasks.images import recipes

COLUMNS = ("setting", "top-1", "ECE", "n", "the paper's top-1, Table 1", "what runs a seed more")


def section(found: Sequence[Record]) -> str:
    """A row a setting; then where the runs come from, if there are any."""
    rows = [row(name, [run for run in found if _is_of(run, name)]) for name in recipes.RECIPES]
    parts = [tables.markdown(COLUMNS, rows)]
    if found:
        parts += [f"{provenance(found)}."]
    return "\n\n".join(parts)


def row(name: str, runs: Sequence[Record]) -> tuple[str, ...]:
    """What some runs of one setting come to."""
    recipe = recipes.RECIPES[name]
    folder = found.name if (found := folders.newest("imagenet")) else "DATE-imagenet"
    command = (
        f"`python -m examples.imagenet {name} --data-dir DIR --first-seed {len(runs)}"
        f" --out benchmarks/records/{folder}/imagenet.jsonl`"
    )
    figure = reported.TABLE_1[f"imagenet-{recipe.batch_size}"].get(recipe.optimizer, "")
    if not runs:
        return name, NOT_YET_RUN, NOT_YET_RUN, "", figure, command
    top_1 = tables.mean_and_error(100 * tables.final(runs, "accuracy"), digits=2)
    ece = tables.mean_and_error(tables.final(runs, "ece"), digits=3)
    return name, top_1, ece, str(len(runs)), figure, command


def _is_of(run: Record, name: str) -> bool:
    """Whether a run has a setting as it is, of the whole set."""
    config, wanted = run["config"], recipes.options(recipes.RECIPES[name])
    whole = {"dataset": "imagenet2012", "train_images": None, "model": "resnet50", "width": 1.0}
    # How a batch is shared out changes no more than rounding and what is normalised together.
    wanted = {k: v for k, v in (wanted | whole).items() if k != "accumulate"}
    return all(config[k] == v for k, v in wanted.items())
