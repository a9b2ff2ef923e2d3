"""Simulated tunings, against what is known of made scores."""

import numpy as np
import pytest

from benchmarks.paper import studies
from benchmarks.paper.searches import SEARCHES
from benchmarks.report import search_tables
from benchmarks.report.search_tables import Scores

USERS, TRIALS = 400, 8


def made(validation, test):
    """Scores of 0 or 100 of users in no order, by the shares `(searches, trials)` of 100."""
    rng = np.random.default_rng(0)
    draw = lambda shares: rng.random((*np.shape(shares), USERS)) < np.expand_dims(shares, -1)
    return Scores(100.0 * draw(validation), 100.0 * draw(test))


@pytest.fixture
def many(monkeypatch):
    monkeypatch.setattr(search_tables, "REPLICATES", 1000)


def test_the_best_on_validation_counts_with_its_test_score(many):
    # The setting that validation prefers, by far, is not the best on the test items.
    validation = np.linspace(0.1, 0.8, TRIALS)[None]
    test = np.linspace(0.8, 0.1, TRIALS)[None]
    hits = made(validation, test)
    scores = hits.test[0].mean(axis=1)
    simulated = search_tables.simulate({"made": hits}, 1.0)["made"]
    assert np.mean(simulated.best[:, -1]) == pytest.approx(scores[-1], abs=0.5)
    # One trial is any of them.
    assert np.mean(simulated.best[:, 0]) == pytest.approx(np.mean(scores), abs=3)
    # Of two the one that validation prefers: the mean over pairs, drawn without replacement.
    pairs = [scores[max(i, j)] for i in range(TRIALS) for j in range(TRIALS) if i != j]
    assert np.mean(simulated.best[:, 1]) == pytest.approx(np.mean(pairs), abs=3)


def test_the_spread_of_one_setting_is_that_of_its_users_and_searches(many):
    shares = np.full((2, 1), 0.5)
    simulated = search_tables.simulate({"made": made(shares, shares)}, 1.0)["made"]
    binomial = 100 * np.sqrt(0.25 / USERS)
    assert np.std(simulated.best[:, 0]) == pytest.approx(binomial, rel=0.4)


def test_near_the_best_is_near_the_best_of_any_space(many):
    flat, low = np.full((1, TRIALS), 0.999), np.full((1, TRIALS), 0.5)
    low[0, 0] = 0.999
    simulated = search_tables.simulate({"flat": made(flat, flat), "low": made(low, low)}, 1.0)
    assert np.median(simulated["flat"].near) == pytest.approx(1, abs=0.13)
    assert np.median(simulated["low"].near) == pytest.approx(1 / TRIALS)


def test_what_is_no_better_on_validation_is_not_taken(many):
    same = np.ones((1, TRIALS))
    hits = made(same, np.linspace(0, 1, TRIALS)[None])
    simulated = search_tables.simulate({"made": hits}, 1.0)["made"]
    # The first of each order stays.
    np.testing.assert_array_equal(simulated.best[:, -1], simulated.best[:, 0])


def test_ranks_begin_with_the_best_and_equals_share_one(many):
    high, low = np.full((1, TRIALS), 0.9), np.full((1, TRIALS), 0.3)
    of_high, of_low = made(high, high), made(low, low)
    simulated = search_tables.simulate({"low": of_low, "high": of_high, "again": of_high}, 1.0)
    low_ranks, *high_ranks = search_tables.ranks(simulated)
    np.testing.assert_array_equal(low_ranks, 3)
    # The same scores in two orders: equal where all trials are known.
    assert np.mean(high_ranks) == pytest.approx(1.5)


def test_an_optimizer_that_is_yet_to_be_run_hides_none_of_the_others():
    search = SEARCHES["all-digits"]
    run = {"study": search.name}
    found = {
        studies.identity(setting.config()): run
        for space in search.spaces
        for i in range(search.searches)
        for setting in search.settings(space, i)
        if space != "CPR" and (space, i) != ("AdamP", 1)
    }
    part = search_tables.done(search, found)
    assert part.searches == (0, 1)
    assert {*search.spaces} - {*part.search.spaces} == {"AdamP", "CPR"}
    entries = [entry.what for entry in search_tables.missing(found) if search.what in entry.what]
    assert entries[0].endswith("AdamP, 1 of 2 searches missing")
    assert entries[1].endswith("CPR, 2 of 2 searches missing")
    assert search_tables.done(search, {}).searches == ()


def test_a_language_model_that_diverged_counts_as_a_guess():
    read = SEARCHES["all-lm"].example.detail.read
    validation, test = read({"pieces": [2.0, np.nan, 3.0, np.inf]})
    np.testing.assert_array_equal(validation, [-2.0, -3.0])
    np.testing.assert_array_equal(test, [-8.0, -8.0])
