"""What the modules of a library use, as a task: read, split and drawn as it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.tasks import identifiers, standard_library
from examples.tasks.recommendation.ranking import NEGATIVES
from tests.examples.toys import toy_uses


@pytest.fixture
def uses():
    rows = toy_uses()
    assert rows.sum(axis=1).min() >= 10
    return rows


def pairs(modules, names):
    return set(zip(np.ravel(modules).tolist(), np.ravel(names).tolist(), strict=True))


def test_names_and_attributes_are_read_and_tests_and_other_files_are_not(tmp_path):
    (tmp_path / "package" / "tests").mkdir(parents=True)
    (tmp_path / "package" / "one.py").write_text("import os\nhome = os.path.join('not_a_name')\n")
    (tmp_path / "package" / "tests" / "two.py").write_text("left = out")
    (tmp_path / "package" / "three.py").write_text("this is no Python")
    found = dict(identifiers.sources(tmp_path))
    assert list(found.values()) == [{"home", "os", "path", "join"}]


def test_rare_names_and_small_modules_are_left_out(monkeypatch):
    monkeypatch.setattr(identifiers, "MIN_MODULES", 2)
    monkeypatch.setattr(identifiers, "MIN_IDENTIFIERS", 2)
    found = {"a": {"x", "y", "rare"}, "b": {"x", "z"}, "c": {"y", "z", "x"}, "d": {"z"}}
    np.testing.assert_array_equal(
        identifiers.table(found), [[True, True, False], [True, False, True], [True, True, True]]
    )


def test_what_is_held_out_is_used_and_trained_on_nowhere_and_its_rivals_are_not_used(uses):
    task = identifiers.make_task(uses, batch_size=50, tower=(8, 4), split_seed=0)
    train = pairs(task.modules, task.identifiers)
    parts = [pairs(part.modules, part.candidates[:, 0]) for part in (task.validation, task.test)]
    assert sum(map(len, (train, *parts))) == len(train.union(*parts)) == uses.sum()
    assert train.union(*parts) == pairs(*np.nonzero(uses))
    for part in (task.validation, task.test):
        np.testing.assert_array_equal(np.unique(part.modules), np.arange(len(uses)))
        rivals = part.candidates[:, 1:]
        assert not uses[np.asarray(part.modules)[:, None], rivals].any()
        assert all(len(set(row)) == identifiers.RIVALS for row in rivals.tolist())


def test_the_split_is_its_seeds(uses):
    task = lambda seed: identifiers.make_task(uses, 50, (8, 4), seed)
    np.testing.assert_array_equal(task(1).test.candidates, task(1).test.candidates)
    assert pairs(task(1).modules, task(1).identifiers) != pairs(
        task(2).modules, task(2).identifiers
    )


def test_an_epoch_has_each_pair_once_among_negatives_of_its_module(uses):
    task = identifiers.make_task(uses, batch_size=5, tower=(8, 4), split_seed=0)
    batches = jax.jit(task.batches)
    modules, names, used = map(np.asarray, batches(jax.random.key(0)))
    assert modules.shape == (task.steps_per_epoch, 5) == (len(task.modules), 1 + NEGATIVES)
    train = pairs(task.modules, task.identifiers)
    assert used.sum() == len(train)
    assert pairs(modules[used], names[used]) == train
    assert not pairs(modules[~used], names[~used]) & train
    # All that a module is not known to use is drawn, over some epochs, and nothing beyond.
    drawn = set()
    for seed in range(60):
        modules, names, used = map(np.asarray, batches(jax.random.key(seed)))
        drawn |= pairs(modules[~used], names[~used])
    assert drawn == pairs(*np.nonzero(np.ones_like(uses))) - train


def test_scores_of_a_model_that_knows_and_of_one_that_errs(uses):
    task = identifiers.make_task(uses, batch_size=50, tower=(8, 4), split_seed=0)
    knows = lambda modules, names: jnp.asarray(uses)[modules, names].astype(float)
    errs = lambda modules, names: -knows(modules, names)
    names = {f"{part}{score}_at_10" for part in ("", "validation_") for score in ("hr", "ndcg")}
    assert task.evaluate(knows) == dict.fromkeys(names, 1.0)
    assert task.evaluate(errs) == dict.fromkeys(names, 0.0)


def test_a_batch_that_does_not_fit_is_named(uses):
    with pytest.raises(ValueError, match="batch_size=4 must lie between 5 and"):
        identifiers.make_task(uses, batch_size=4, tower=(8, 4), split_seed=0)


def test_a_python_without_its_sources_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(standard_library, "folder", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no modules to learn from"):
        identifiers.load(50)
