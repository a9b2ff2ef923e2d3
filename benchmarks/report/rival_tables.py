"""Shows the searches of Nado et al. (2021): every setting, and which share of them reaches a score.

As their Figures 6 to 12: the slices by each hyperparameter, and the share of settings by target.
"""

from pathlib import Path

import numpy as np

from benchmarks.paper.rivals import SEARCHES
from benchmarks.paper.studies import Search
from benchmarks.report import search_slices
from benchmarks.report.part import Missing, Part, sweep_command
from benchmarks.report.provenance import origin
from benchmarks.report.search_slices import Slice
from benchmarks.report.search_tables import done, load, runs_of, test_score
from benchmarks.report.study_tables import Found
from examples.results import tables


def part() -> Part:
    """Return the pictures and tables of all these searches."""
    found = load()
    return Part(sections(found), missing=missing(found), draw=lambda folder: draw(folder, found))


def sections(found: Found) -> dict[str, str]:
    """Return the pictures and the table by search, "" where none was run to its end."""
    return {name: page(search, found) for name, search in SEARCHES.items()}


def page(search: Search, found: Found) -> str:
    """Return the pictures of a search, and a row for each of its spaces."""
    part = done(search, found)
    if not part.searches:
        return ""
    label, sign = _label(search)
    rows = []
    for space, (first, *_) in _slices(search, found).items():
        scores = first.y[np.isfinite(first.y)]
        best, median = (f"{sign * x:.4g}" for x in (scores.max(), np.median(scores)))
        rows.append((space, str(len(first.y)), best, median, str(len(first.y) - len(scores))))
    columns = ("tuned", "settings", f"best {label}", f"median {label}", "not finite")
    runs = [run for searches in runs_of(part, found).values() for of in searches for run in of]
    text = (
        f"Every setting of {search.name.replace('-', ' ')}, after the last epoch, by each of its"
        f" hyperparameters, and which share of them reaches a score. {len(runs)} runs,"
        f" {origin(runs)}."
    )
    pictures = [f"![{what}]({link})" for what, link in _pictures("../docs", search).items()]
    return "\n\n".join([*pictures, text, tables.markdown(columns, rows)])


def missing(found: Found) -> list[Missing]:
    """Return what was not run."""
    return [
        Missing(
            "the searches of Nado et al. (2021)",
            "",
            sweep_command(*lacking),
        )
        for lacking in [[name for name, s in SEARCHES.items() if not done(s, found).searches]]
        if lacking
    ]


def draw(folder: Path, found: Found) -> None:
    """Draw the slices of each search, and the share of its settings that reach a score."""
    for search in SEARCHES.values():
        if done(search, found).searches:
            label, _ = _label(search)
            slices, share = (Path(link) for link in _pictures(str(folder), search).values())
            search_slices.draw_slices(slices, _slices(search, found), label)
            search_slices.draw_share_reaching(share, _slices(search, found), label)


def _slices(search: Search, found: Found) -> dict[str, list[Slice]]:
    return search_slices.slices(done(search, found).search, found, test_score(search))


def _label(search: Search) -> tuple[str, int]:
    """Return what the score is called, and -1 where it is a loss turned round."""
    detail = search.example.detail
    return (detail.what, detail.sign) if detail else (search.example.score, 1)


def _pictures(folder: str, search: Search) -> dict[str, str]:
    label, _ = _label(search)
    return {
        f"{label} by what is tuned": f"{folder}/{search.name}-slices.png",
        f"settings that reach a {label}": f"{folder}/{search.name}-share.png",
    }
