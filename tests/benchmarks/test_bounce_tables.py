"""When norms bounce, as RESULTS shows it: from made runs whose bounces are known."""

import pytest

from benchmarks.paper.comparisons import COMPARISONS
from benchmarks.report import bounce_tables
from tests.benchmarks import made

COMPARISON = COMPARISONS["bounce-rate"]
BOUNCED_AT = 10


def record(run):
    """A norm that falls and rises again, but at the small peak."""
    bounces = run.learning_rate == 0.1
    norm = [1.0 + abs(BOUNCED_AT - 1 - i) if bounces else 1.0 + i for i in range(run.epochs)]
    curve = {
        "accuracy": [0.5] * run.epochs,
        "train_loss": [1.0] * run.epochs,
        "norm/first/kernel": [3 * x for x in norm],
        "norm/second/kernel": [4 * x for x in norm],
    }
    return made.record(run, {"accuracy": 0.5 + 0.1 * bounces}, curve=curve)


@pytest.fixture
def runs():
    return [record(run) for run in COMPARISON.runs()]


def load(monkeypatch, runs):
    of = {COMPARISON.name: runs}
    monkeypatch.setattr(bounce_tables, "records_of", lambda name: of.get(name, []))
    return bounce_tables.load()


def test_every_setting_has_a_row_and_its_bounces(runs, monkeypatch, tmp_path):
    loaded = load(monkeypatch, runs)
    page = bounce_tables.sections(loaded)[COMPARISON.name]
    rows = {
        cells[0].strip(): [cell.strip() for cell in cells[1:]]
        for line in page.splitlines()
        if line.startswith("| ") and len(cells := line.strip("|").split("|")) == 4
    }
    assert rows["simple, peak 0.1"][:2] == ["60.0 ± 0.0", "10, 10, 10"]
    assert rows["simple, peak 0.01"][:2] == ["50.0 ± 0.0", "-, -, -"]
    # The norm after the last epoch: of a straight line, and of one that has turned.
    assert rows["simple, peak 0.01"][2] == "40.00 ± 0.00"
    assert rows["simple, peak 0.1"][2] == "3.10 ± 0.00"
    bounce_tables.draw(tmp_path, loaded)
    pictures = {path.name for path in tmp_path.iterdir()}
    assert pictures == {"bounce-rate-40.png", "bounce-rate-200.png"}
    assert all(f"../docs/{name}" in page for name in pictures)


def test_a_missing_run_leaves_no_table(runs, monkeypatch):
    loaded = load(monkeypatch, runs[1:])
    assert bounce_tables.sections(loaded)[COMPARISON.name] == ""
    assert len(bounce_tables.missing(loaded)) == 3
