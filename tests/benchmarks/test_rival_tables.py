"""The searches of Nado et al., as RESULTS shows them: from made runs whose scores are known."""

import numpy as np
import pytest

from benchmarks.paper import studies
from benchmarks.paper.rivals import SEARCHES
from benchmarks.report import rival_tables

SEARCH = SEARCHES["nado-table-18"]


@pytest.fixture
def found():
    """Accuracies from 0 on by hundredths, and one run that is not finite."""
    settings = SEARCH.settings("Nesterov", 0)
    record = lambda i: {
        "final": {"accuracy": i / 100 if i else None},
        "device": "cpu",
        "versions": {"commit": "abc"},
    }
    return {studies.identity(run.config()): record(i) for i, run in enumerate(settings)}


def test_a_search_has_its_pictures_and_a_row(found, tmp_path):
    page = rival_tables.sections(found)[SEARCH.name]
    row = next(line for line in page.splitlines() if line.startswith("| Nesterov"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    n = len(found)
    median = np.median(np.arange(1, n)) / 100
    assert cells == ["Nesterov", str(n), f"{(n - 1) / 100:.4g}", f"{median:.4g}", "1"]
    rival_tables.draw(tmp_path, found)
    pictures = {path.name for path in tmp_path.iterdir()}
    assert pictures == {f"{SEARCH.name}-slices.png", f"{SEARCH.name}-share.png"}
    assert all(f"../docs/{name}" in page for name in pictures)


def test_what_was_not_run_is_one_command(found):
    (entry,) = rival_tables.missing(found)
    assert SEARCH.name not in entry.command
    assert "nado-table-6 " in entry.command
    (entry,) = rival_tables.missing({})
    assert all(name in entry.command for name in SEARCHES)
    found.popitem()
    assert rival_tables.sections(found)[SEARCH.name] == ""
