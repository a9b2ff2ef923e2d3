"""Norms of records: the total, its bounces, the shares of the layers, against sums by hand."""

import json

import numpy as np
import pytest

from examples.results import norms, plots

# Two runs of three layers; a bias has no norm in a record.
CURVES = [
    {"train_loss": [1.0, 0.5, 0.4], "norm/a": [3.0, 1.0, 2.0], "norm/b/kernel": [4.0, 2.0, 2.0]},
    {"train_loss": [1.0, 0.6, 0.3], "norm/a": [5.0, 3.0, 4.0], "norm/b/kernel": [12.0, 4.0, 6.0]},
]
RUNS = [{"curve": curve, "final": {k: x[-1] for k, x in curve.items()}} for curve in CURVES]


def test_the_total_is_of_all_layers_and_is_the_largest():
    run, other = map(norms.with_total, RUNS)
    np.testing.assert_allclose(run["curve"]["norm/total"], [5, 5**0.5, 8**0.5])
    assert other["curve"]["norm/total"][0] == other["final"]["norm/total"] + 13 - 52**0.5
    assert "norm/total" not in RUNS[0]["curve"]
    json.dumps(run)
    np.testing.assert_allclose(norms.mean([run, other])["a"], [4, 2, 3])
    assert norms.mean([run, other]).keys() == {"a", "b/kernel"}
    without = {"curve": {"train_loss": [1.0]}, "final": {"train_loss": 1.0}}
    assert norms.with_total(without) == without


def test_shares_of_the_squared_norm_are_of_the_largest_layers():
    layers = {f"{i}": np.array([i, 30.0 - i]) for i in range(1, 13)}
    names = norms.largest(layers, count=10)
    # At their largest: 29, 28, ... of the first ones.
    assert names == [f"{i}" for i in range(1, 11)]
    shares = norms.shares(layers, names)
    np.testing.assert_allclose(shares["2"], [4 / 650, 28**2 / sum(x * x for x in range(18, 30))])
    assert sum(shares.values())[1] < 1
    np.testing.assert_allclose(sum(norms.shares(layers, list(layers)).values()), [1, 1])


@pytest.mark.parametrize(
    ("norm", "at"),
    [
        ([5, 4, 3, 4, 5], [2]),
        ([3, 4, 5, 4, 3], []),  # A turn down is none.
        ([5, 3, 3, 4, 2, 6], [1, 4]),
        ([5, 4, 4 + 1e-6, 4 - 1e-6, 4 + 1e-6], []),  # A norm that is held.
        ([5, 4, 4 - 2e-6, 4 + 1], [1]),
        ([5.0], []),
    ],
)
def test_a_bounce_is_where_a_norm_has_fallen_and_rises(norm, at):
    assert norms.bounces(np.array(norm, float)) == at


def drawn(monkeypatch, draw):
    """The figure that a function draws, without a file."""
    figures = []
    monkeypatch.setattr(plots.Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    draw()
    return figures[0]


def test_the_pictures_mark_bounces_and_add_up_the_shares(monkeypatch, tmp_path):
    runs = {"one": RUNS[:1], "both": RUNS}
    figure = drawn(monkeypatch, lambda: plots.draw_layers(tmp_path / "layers.png", runs))
    (one, both), (below, _) = np.reshape(figure.axes, (2, 2))
    assert [line.get_label() for line in both.lines] == ["b/kernel", "a", "these 2"]
    np.testing.assert_allclose(both.lines[0].get_ydata(), [64 / 80, 9 / 13, 16 / 25])
    np.testing.assert_allclose(one.lines[2].get_ydata(), [1, 1, 1])
    np.testing.assert_allclose(below.lines[1].get_ydata(), [1, 1 / 3, 2 / 3])
    assert [line.get_markevery() for line in below.lines] == [[], [1]]
    runs = {method: [norms.with_total(run) for run in of] for method, of in runs.items()}
    panels = {"norm/a": "a", norms.TOTAL: "all layers"}
    figure = drawn(monkeypatch, lambda: plots.draw(tmp_path / "x.png", {"": runs}, panels))
    a, total = figure.axes
    assert a.lines[1].get_marker() == "None"
    marks = norms.bounces(total.lines[1].get_ydata())
    assert marks
    assert (total.lines[1].get_marker(), total.lines[1].get_markevery()) == ("^", marks)


@pytest.mark.parametrize(
    ("norm", "value", "at"),
    [
        *(([1, 2, 4], 3, 2.5), ([1, 3, 2, 4], 2.5, 3.25), ([1, 2, 4], 5, None), ([2, 2, 3], 2, 2)),
        ([5, 4, 4.5, 5 - 1e-6], 5, pytest.approx(4)),
    ],
)
def test_a_norm_last_had_a_value_between_two_epochs(norm, value, at):
    assert norms.last_at(np.array(norm, float), value) == at


@pytest.mark.parametrize(("held", "rings"), [(2.5, [2.5]), (4.0, []), (4.5, [])])
def test_a_ring_marks_the_earlier_epoch_whose_norms_are_held(monkeypatch, tmp_path, held, rings):
    curve = {"train_loss": [0.0] * 6, "norm/a": [1.0, 2.0, 3.0, 4.0, held, held]}
    run = {"curve": curve, "final": {"constrained_epochs": 2.0}}
    draw = lambda: plots.draw(tmp_path / "x.png", {"": {"a": [run]}}, {"norm/a": "a"})
    _, dot, *others = drawn(monkeypatch, draw).axes[0].lines
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (4, held)
    assert [ring.get_xdata()[0] for ring in others] == rings
    assert all(ring.get_markerfacecolor() == "none" for ring in others)
