"""Shows the quickstart: what it prints, and what its settings reach if they are chosen anew."""

import csv
from collections.abc import Sequence

import numpy as np

from benchmarks.report.part import Finding, Part
from benchmarks.tools.records import RECORDS, newest_or_new, records_of
from examples import quickstart
from examples.results import tables
from examples.results.records import Record


def part() -> Part:
    """Return the tables of the README and of RESULTS.md, with the picture."""
    found = load()
    longest = quickstart.longest(found)
    return Part(
        {"quickstart": quickstart.table(found)},
        [finding(found)],
        of_readme={
            "quickstart": f"{quickstart.score_table(longest)}\n\n{quickstart.spread(longest)}",
            "tuned-anew": tuned_anew(),
        },
        draw=lambda folder: quickstart.draw(folder / "quickstart.png", found),
    )


def load() -> list[Record]:
    """Return the runs, without which there is no README."""
    found = records_of("quickstart")
    if not found:
        raise FileNotFoundError(f"no folder <date>-quickstart in {RECORDS}: make its records.")
    return found


def finding(found: Sequence[Record]) -> Finding:
    """Return what the quickstart shows after its longest runs."""
    longest = quickstart.longest(found)
    runs = tables.group(longest, lambda record: record["config"]["method"])
    ended = {
        method: tables.mean_and_error(100 * tables.final(of_method, "hr_at_10"), digits=1)
        for method, of_method in runs.items()
    }
    *others, lawn = ended
    tuned_at = found[0]["config"]["grid"]["epochs"]
    return Finding(
        f"HR@10 in percent, the quickstart's identifiers, tuned at {tuned_at} epochs and run for"
        f" {longest[0]['config']['epochs']}: {lawn}",
        ended[lawn],
        "; ".join(f"{method}: {ended[method]}" for method in others),
        str(len(runs[lawn])),
        "The first run: identifiers of Python's standard library",
    )


def tuned_anew(epochs: int = 60) -> str:
    """Say what AdamW and Adam-LAWN reach if settings are chosen at the length that is reported."""
    lengths = newest_or_new("quickstart-lengths") / "lengths.csv"
    with lengths.open(encoding="utf-8", newline="") as file:
        runs = [run for run in csv.DictReader(file) if run["epochs"] == str(epochs)]
    columns = ("role", "method", "peak", "decay", "free_epochs")
    by_setting = tables.group(runs, lambda run: tuple(run[name] for name in columns))

    def mean(run_key: tuple[str, ...], name: str) -> float:
        return float(np.mean([float(run[name]) for run in by_setting[run_key]]))

    def ended(method: str) -> str:
        tried = [run_key for run_key in by_setting if run_key[:2] == ("tune", method)]
        chosen = max(
            tried,
            key=lambda k: (mean(k, "validation_hr_at_10"), mean(k, "validation_ndcg_at_10")),
        )
        reported = by_setting["report", *chosen[1:]]
        percent = 100 * np.array([run["hr_at_10"] for run in reported], float)
        of = f"of {len(tried)} settings, {len(percent)} seeds"
        return f"{method} {tables.mean_and_error(percent)} ({of})"

    return (
        f"Chosen at {epochs} epochs, on another split of the data: {ended('AdamW')},"
        f" {ended('Adam-LAWN')}."
    )
