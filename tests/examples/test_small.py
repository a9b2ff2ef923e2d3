"""Small problems: what they are made of, and how they are refused."""

import sys
from typing import get_args

import numpy as np
import pytest

from examples import small as example
from examples.tasks import small


@pytest.mark.parametrize("name", small.PROBLEMS)
def test_a_problem_has_all_classes_in_every_part(name):
    task, again = small.load(name, 50), small.load(name, 50)
    assert len(task.train[1]) == small.PROBLEMS[name].train
    assert len(task.validation[1]) == small.PROBLEMS[name].validation
    for (x, labels), (_, same) in zip(
        (task.train, task.validation, task.test),
        (again.train, again.validation, again.test),
        strict=True,
    ):
        assert len(x) == len(labels) >= 40
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        assert set(np.unique(labels)) == set(range(task.classes))
        np.testing.assert_array_equal(labels, same)


def test_every_problem_has_a_name_for_the_command():
    assert set(small.PROBLEMS) == set(get_args(small.SmallName))


def test_wrong_labels_are_as_many_as_asked_for_and_in_the_training_set_alone():
    clean, noisy = small.load("wine", 80), small.load("wine", 80, noise=0.3)
    assert np.sum(clean.train[1] != noisy.train[1]) == 24
    np.testing.assert_array_equal(clean.train[0], noisy.train[0])
    np.testing.assert_array_equal(clean.test[1], noisy.test[1])
    assert set(np.unique(noisy.train[1])) <= {0, 1, 2}


def test_parity_is_of_three_signs():
    task = small.load("parity", 100)
    for x, labels in (task.train, task.test):
        np.testing.assert_array_equal(labels, x[:, 0] * x[:, 1] * x[:, 2] > 0)


def test_sums_are_of_two_numbers_and_each_pair_comes_once():
    task = small.load("addition", 600)
    parts = (task.train, task.validation, task.test)
    x, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    a, b = x[:, :31].argmax(axis=1), x[:, 31:].argmax(axis=1)
    np.testing.assert_array_equal(x.sum(axis=1), 2)
    np.testing.assert_array_equal(labels, (a + b) % 31)
    assert len(set(zip(a.tolist(), b.tolist(), strict=True))) == 31**2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": 1.1}, "noise=1.1 must be a share"),
        ({"batch_size": 81}, "batch_size=81 must lie between 1 and the 80 examples"),
        ({"batch_size": 0}, "batch_size=0 must lie between 1 and"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small.load("wine", **{"batch_size": 80, **options})


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mnist1d", None)
    with pytest.raises(ImportError, match="pip install mnist1d"):
        small.load("mnist1d", 100)


def test_scores_by_example_have_the_mean_that_is_reported():
    task = small.load("wine", 40)
    config = example.Config(dataset="wine", batch_size=40, epochs=3, warmup_epochs=1.0, seeds=2)
    result = example.training.train(task, config)
    hits = example.training.evaluate(task, result.state.params, result.state.rest, "score_examples")
    for name, scores in (("accuracy", "hits"), ("validation_accuracy", "validation_hits")):
        np.testing.assert_allclose(
            np.mean(hits[scores], axis=1), result.curve[name][:, -1], rtol=1e-6
        )


def test_the_command_reports(capsys):
    example.main(
        example.Config(dataset="wine", batch_size=40, epochs=2, warmup_epochs=1.0, seeds=1)
    )
    told = capsys.readouterr().out
    for row in example.REPORTED:
        assert row in told
