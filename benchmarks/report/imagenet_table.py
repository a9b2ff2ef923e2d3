"""Shows the settings of `examples.imagenet` that were run, beside the paper's Table 1."""

from collections.abc import Sequence

from benchmarks.paper import reported
from benchmarks.report.part import Missing, Part
from benchmarks.report.provenance import provenance
from benchmarks.tools.records import newest, records_of
from examples.results import tables
from examples.results.records import Record
from examples.tasks.images import recipes


def part() -> Part:
    """Return the table."""
    found = records_of("imagenet")
    return Part({"imagenet": table(found)}, missing=missing(found))


def table(found: Sequence[Record]) -> str:
    """Return a row for each setting that was run, "" if none was."""
    columns = ("setting", "top-1", "ECE", "n", "the paper's top-1, Table 1")
    rows = []
    for name in recipes.RECIPES:
        if runs := [run for run in found if _is_of(run, name)]:
            top_1 = tables.mean_and_error(100 * tables.final(runs, "accuracy"), digits=2)
            ece = tables.mean_and_error(tables.final(runs, "ece"), digits=3)
            rows.append((name, top_1, ece, str(len(runs)), _of_table_1(name)))
    return f"{tables.markdown(columns, rows)}\n\n{provenance(found)}." if rows else ""


def missing(found: Sequence[Record]) -> list[Missing]:
    """Return the settings that were not run."""
    folder = there.name if (there := newest("imagenet")) else "DATE-imagenet"
    command = "python -m examples.imagenet {} --data-dir DIR --out benchmarks/records/{}/{}.jsonl"
    return [
        Missing(
            f"ImageNet, ResNet-50: {name}",
            f"Table 1: {figure}" if (figure := _of_table_1(name)) else "",
            command.format(name, folder, "imagenet"),
        )
        for name in recipes.RECIPES
        if not any(_is_of(run, name) for run in found)
    ]


def _of_table_1(name: str) -> str:
    options = recipes.RECIPES[name].options
    return reported.TABLE_1[f"imagenet-{options['batch_size']}"].get(options["optimizer"], "")


def _is_of(run: Record, name: str) -> bool:
    """Tell whether a run has a setting as it is, of the whole set."""
    config, wanted = run["config"], recipes.RECIPES[name].options
    whole = {"dataset": "imagenet2012", "train_images": None, "model": "resnet50", "width": 1.0}
    # How a batch is shared out changes no more than rounding and what is normalised together.
    wanted = {k: v for k, v in {**wanted, **whole}.items() if k != "accumulate"}
    return all(config[k] == v for k, v in wanted.items())
