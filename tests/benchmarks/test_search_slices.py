"""Slices of a search: each score beside what was drawn, the best of each bucket, the shares."""

import dataclasses
from contextlib import contextmanager

import numpy as np
import pytest

from benchmarks.paper import rivals, searches, studies
from benchmarks.report import search_slices

BASE = dataclasses.replace(searches.MOVIELENS["10k"], optimizer="adam")
SEARCH = studies.Search(
    name="slices", base=BASE, spaces={"Adam": (BASE, rivals.TABLE_6)}, trials=32, searches=2
)


hit_rate = lambda run: np.float64(run["final"]["hr_at_10"] or np.nan)


def score(setting):
    """What is best at a learning rate of 0.01, whatever else is drawn."""
    return 1 - abs(np.log10(setting.learning_rate) + 2) / 4


@pytest.fixture
def found():
    runs = [run for i in range(2) for run in SEARCH.settings("Adam", i)]
    return {studies.identity(run.config()): {"final": {"hr_at_10": score(run)}} for run in runs}


def test_each_score_stands_beside_what_was_drawn(found):
    missing = next(iter(found))
    del found[missing]
    (by_name,) = search_slices.slices(SEARCH, found, hit_rate).values()
    assert [of.name for of in by_name] == list(rivals.TABLE_6)
    for of in by_name:
        assert of.x.shape == of.y.shape == (63,)
    rate = by_name[1]
    np.testing.assert_allclose(rate.y, 1 - np.abs(np.log10(rate.x) + 2) / 4)
    assert {*by_name[0].x} == {1.0, 2.0}


def test_the_line_joins_the_best_of_each_eighth_and_of_each_choice(found):
    (by_name,) = search_slices.slices(SEARCH, found, hit_rate).values()
    power, rate = by_name[:2]
    x, y = search_slices.best_by_bucket(rate)
    edges = 10 ** np.linspace(-5, 0, 9)
    assert len(x) == 8
    for low, high, at, best in zip(edges[:-1], edges[1:], x, y, strict=True):
        within = (rate.x >= low * 0.995) & (rate.x <= high * 1.005)
        assert low * 0.995 <= at <= high * 1.005
        assert best == pytest.approx(rate.y[within].max(), abs=0.01)
    x, y = search_slices.best_by_bucket(power)
    assert list(x) == [1.0, 2.0]
    assert list(y) == [power.y[power.x == value].max() for value in x]


def test_what_is_not_finite_is_nobodys_best_and_reaches_nothing(found):
    for record in list(found.values())[::2]:
        record["final"]["hr_at_10"] = None
    (by_name,) = search_slices.slices(SEARCH, found, hit_rate).values()
    assert all(np.isfinite(search_slices.best_by_bucket(of)[1]).all() for of in by_name)
    shares = search_slices.share_reaching(by_name[0].y, np.array([0.0, 2.0]))
    np.testing.assert_array_equal(shares, [0.5, 0.0])


def test_shares_by_hand():
    scores = np.array([0.1, 0.2, 0.3, np.nan])
    shares = search_slices.share_reaching(scores, np.array([0.05, 0.2, 0.25, 0.4]))
    np.testing.assert_array_equal(shares, [0.75, 0.5, 0.25, 0.0])


def test_there_is_a_panel_for_each_hyperparameter(found, tmp_path, monkeypatch):
    drawn, picture = [], search_slices.picture

    @contextmanager
    def kept(*args):
        with picture(*args) as figure:
            drawn.append(figure)
            yield figure

    monkeypatch.setattr(search_slices, "picture", kept)
    by_space = search_slices.slices(SEARCH, found, hit_rate)
    search_slices.draw_slices(tmp_path / "slices.png", by_space, "HR@10")
    search_slices.draw_share_reaching(tmp_path / "share.png", by_space, "HR@10")
    slices, share = (figure.axes for figure in drawn)
    assert [axes.get_xlabel() for axes in slices] == [n.replace("_", " ") for n in rivals.TABLE_6]
    assert [axes.get_xscale() for axes in slices] == ["log"] * len(rivals.TABLE_6)
    assert all(len(axes.lines[0].get_xdata()) == 64 for axes in slices)
    assert share[0].get_ylabel() == "settings that reach it (%)"
    assert {path.name for path in tmp_path.iterdir()} == {"slices.png", "share.png"}
