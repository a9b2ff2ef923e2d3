"""How the best learning rate moves, from made runs whose best rates are known."""

import numpy as np
import pytest

from benchmarks.paper.comparisons import COMPARISONS
from benchmarks.report import transfer_tables
from benchmarks.report.transfer_tables import Tuned
from tests.benchmarks import made

COMPARISON = COMPARISONS["lm-transfer-small"]
WIDTHS, BEST = (16, 32, 64, 128), 0.02  # The narrowest model's best rate.


def loss(run, best):
    """A parabola in the logarithm of the rate, and something that differs between seeds."""
    return 3 + np.log(run.learning_rate / best) ** 2 / 10 + 0.01 * run.first_seed


def record(run):
    # Only AdamW's best rate falls with the width.
    best = BEST * (16 / run.width if run.optimizer == "adamw" else 1)
    return made.record(run, {"bits_per_byte": loss(run, best)})


@pytest.fixture
def runs():
    return [record(run) for run in COMPARISON.runs()]


def load(monkeypatch, runs):
    of = {COMPARISON.name: runs}
    monkeypatch.setattr(transfer_tables, "records_of", lambda name: of.get(name, []))
    return transfer_tables.load()


def test_the_best_rates_are_those_of_the_parabolas(runs, monkeypatch, tmp_path):
    loaded = load(monkeypatch, runs)
    found, shown = loaded[COMPARISON.name]
    assert len(shown) == len(runs)
    for batch in (8, 32):
        for width in WIDTHS:
            np.testing.assert_allclose(found["adamw"][batch][width].best(), BEST * 16 / width)
            np.testing.assert_allclose(found["muon_h"][batch][width].best(), BEST)
    page = transfer_tables.sections(loaded)[COMPARISON.name]
    row = next(line for line in page.splitlines() if line.startswith("| AdamW"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:7] == ["AdamW", "8", "0.02", "0.01", "0.005", "0.0025", "0.12"]
    assert float(cells[8]) > 0.3  # The widest model with the narrowest one's rate.
    transfer_tables.draw(tmp_path, loaded)
    assert (tmp_path / f"{COMPARISON.name}.png").stat().st_size > 10_000


def test_a_best_rate_at_an_edge_is_the_one_tried_and_has_a_star():
    rates = np.array([1e-3, 1e-2, 1e-1])
    falling = Tuned(rates, np.array([[3.0], [2.0], [1.0]]))
    assert falling.best() == 1e-1
    assert transfer_tables._rate(falling, falling.best()) == "0.1*"
    diverged = Tuned(rates, np.array([[3.0], [2.0], [np.nan]]))
    assert diverged.best() == 1e-2, "no parabola passes through what is not finite"


def test_a_missing_run_leaves_no_table(runs, monkeypatch):
    loaded = load(monkeypatch, runs[:-1])
    assert transfer_tables.sections(loaded)[COMPARISON.name] == ""
    commands = [entry.command for entry in transfer_tables.missing(loaded)]
    assert f"python -m benchmarks.paper.sweep --study {COMPARISON.name}" in commands
