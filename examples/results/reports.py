"""Prints the table of what training came to, and keeps its records."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from examples.results import records, tables
from examples.training import Result
from examples.training.options import Options


class ReportedMetric(NamedTuple):
    """Says how a curve is shown: its name, a factor on it, and digits after the point."""

    curve: str
    scale: float = 1
    digits: int = 2


def report(
    about: Mapping[str, Any],
    options: Options,
    result: Result,
    shown: Mapping[str, ReportedMetric],
    *,
    best: bool = False,
    ending: str | None = None,
) -> None:
    """Print the last epoch, and append the records to `options.out` unless they are there.

    Args:
      about: what the records say of the runs, beside their options.
      options: how they were trained.
      result: what came of it.
      shown: by title.
      best: show the best epoch of each seed, too.
      ending: what stands below the table; by default how much was trained, and how long.
    """
    rows = []
    for title, (curve, scale, digits) in shown.items():
        values = scale * result.curve[curve]
        columns = (values[:, -1], values.max(axis=1)) if best else (values[:, -1],)
        rows.append((title, *(tables.mean_and_error(column, digits) for column in columns)))
    heads = ("last epoch", "best epoch") if best else ("last epoch",)
    print(tables.markdown((options.optimizer, *heads), rows))
    how_much = f"{options.seeds} seed(s), {options.epochs} epochs, {result.wall_s:.0f} s"
    print(f"\n{how_much if ending is None else ending}")
    if result.resumed_from == options.epochs:
        print(f"{options.checkpoint_dir} had this run finished: nothing was trained.")
    if options.out:
        config = {**about, **options.config()}
        records.append_new(options.out, records.make_records(config, options.all_seeds, result))
