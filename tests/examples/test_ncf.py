"""The recommender: what it is trained on, what it computes, and that a stopped run goes on."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from flax import nnx

from examples import ncf, training
from examples.tasks import recommendation
from examples.tasks.recommendation import Interactions, ranking
from examples.training.options import Options
from tests.examples.stopping import StoppedError, assert_same, stop_after
from tests.examples.toys import toy_interactions

TOWER = (8, 6, 4)
OPTIONS = Options(optimizer="adam_lawn", epochs=4, batch_size=30, seeds=2, free_epochs=1.5)


@pytest.fixture(scope="module")
def data():
    """Five users of whom the last has interacted with all items but one."""
    rng = np.random.default_rng(0)
    items = [np.sort(rng.choice(12, n, replace=False)) for n in (1, 3, 5, 8, 11)]
    train = [(user, item) for user, row in enumerate(items) for item in row]
    candidates = rng.integers(0, 12, (5, 30))
    # A published negative may be the held-out item itself.
    candidates[2, 7] = candidates[2, 0]
    arrays = (np.array(table, np.int32) for table in (train, candidates))
    return Interactions("toy", *arrays, num_items=12, num_interactions=33, removed_users=0)


@pytest.fixture(scope="module")
def task(data):
    return ranking.make_task(data, 30, TOWER, None)


@pytest.fixture(scope="module")
def model(task):
    return nnx.jit(lambda: task.model(nnx.Rngs(0)))()


@pytest.fixture(scope="module")
def epochs(task):
    """`(5 epochs, steps, batch)` of each column of the batches, as NumPy."""
    keys = jax.random.split(jax.random.key(0), 5)
    return [np.asarray(x) for x in jax.jit(jax.vmap(task.batches))(keys)]


class TestBatches:
    """An epoch: 28 positives and 112 negatives, in five batches of which the last is smaller."""

    def test_shapes_and_dtypes(self, task, epochs):
        users, items, labels, weights = epochs
        assert task.steps_per_epoch == 5
        assert {x.shape for x in (users, items, labels, weights)} == {(5, 5, 30)}
        assert (users.dtype, items.dtype, labels.dtype) == (np.int32, np.int32, bool)
        assert weights.dtype == np.float32

    def test_every_positive_once_and_four_negatives_beside_it(self, epochs, data):
        for users, items, labels, weights in zip(*epochs, strict=True):
            real, positive = weights > 0, labels & (weights > 0)
            pairs = np.stack([users[positive], items[positive]], 1)
            np.testing.assert_array_equal(pairs[np.lexsort(pairs.T[::-1])], data.train)
            drawn = np.bincount(users[real & ~labels])
            np.testing.assert_array_equal(drawn, 4 * np.bincount(data.train[:, 0]))

    def test_the_smaller_batch_is_a_mean_over_its_own(self, epochs):
        *_, weights = epochs
        np.testing.assert_array_equal(weights[0, :4], 1)
        np.testing.assert_allclose(np.sort(weights[0, 4]), 10 * [0] + 20 * [1.5])

    def test_a_batch_may_be_the_whole_epoch(self, data):
        task = ranking.make_task(data, 1000, TOWER, None)
        assert task.steps_per_epoch == 1
        batches = jax.eval_shape(task.batches, jax.random.key(0))
        assert {x.shape for x in batches} == {(1, 140)}

    def test_negatives_are_uniform_over_what_was_not_observed(self, task, data):
        keys = jax.random.split(jax.random.key(1), 3000)
        drawn = np.asarray(jax.jit(jax.vmap(task.negatives))(keys))
        for user in range(data.num_users):
            rows = data.train[:, 0] == user
            counts = np.bincount(drawn[:, rows].ravel(), minlength=data.num_items)
            free = np.setdiff1d(np.arange(data.num_items), data.train[rows, 1])
            assert counts.sum() == counts[free].sum(), "an observed pair was drawn"
            mean = counts.sum() / len(free)
            # Chi-square: mean and variance are k and 2k.
            k = len(free) - 1
            assert np.sum((counts[free] - mean) ** 2 / mean) <= k + 4 * np.sqrt(2 * k)

    def test_epochs_differ(self, epochs):
        users, items, *_ = epochs
        assert (users[0] != users[1]).any()
        assert (items[0] != items[1]).any()


class TestModel:
    """Embeddings of 128, and 256-128-64-1."""

    def test_parameters_of_the_paper(self):
        model = nnx.eval_shape(lambda: ranking.NCF(943, 1682, (256, 128, 64), nnx.Rngs(0)))
        shapes = {(943, 128), (1682, 128), (256, 128), (128,), (128, 64), (64,), (64, 1), (1,)}
        leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
        assert {x.shape for x in leaves} == shapes
        assert sum(x.size for x in leaves) == 2625 * 128 + 257 * 128 + 129 * 64 + 65

    @pytest.mark.parametrize("batch", [3, 8, 40])
    def test_logits_are_those_of_the_plain_perceptron(self, model, batch):
        # Batches smaller than both tables, than one, than none.
        rng = np.random.default_rng(1)
        users, items = rng.integers(0, 5, batch), rng.integers(0, 12, batch)
        logits = model(jnp.array(users), jnp.array(items))
        assert logits.shape == (batch,)
        np.testing.assert_allclose(logits, plain_logits(model, users, items), rtol=1e-5)

    def test_no_embedding_or_too_few_widths(self, data):
        with pytest.raises(ValueError, match=r"tower=\(7, 4\) must have"):
            ranking.make_task(data, 30, (7, 4), None)


def plain_logits(model, users, items):
    """In NumPy and double precision."""
    f64 = lambda x: np.asarray(x[...], np.float64)
    x = np.concatenate([f64(model.users.embedding)[users], f64(model.items.embedding)[items]], -1)
    for layer in model.layers:
        x = np.maximum(x @ f64(layer.kernel) + f64(layer.bias), 0)
    return (x @ f64(model.prediction.kernel) + f64(model.prediction.bias))[..., 0]


def test_evaluation_is_a_ranking_of_the_candidates(task, model, data):
    # Larger weights, so that no two candidates come close.
    model = nnx.merge(nnx.graphdef(model), jax.tree.map(lambda x: 9 * x, nnx.state(model)))
    hits, gains = [], []
    for user, (held_out, *negatives) in enumerate(data.candidates):
        scores = plain_logits(model, np.full(12, user), np.arange(12))
        rivals = [i for i in negatives if i != held_out]
        rank = sum(scores[i] > scores[held_out] for i in rivals)
        hits.append(rank < 10)
        gains.append(1 / np.log2(2 + rank) if rank < 10 else 0.0)
    metrics = task.evaluate(model)
    assert 0 < np.mean(hits) < 1
    np.testing.assert_allclose(metrics["hr_at_10"], np.mean(hits))
    np.testing.assert_allclose(metrics["ndcg_at_10"], np.mean(gains), rtol=1e-5)


def test_focal_loss(data, model):
    users, items = data.train[:20].T
    labels, weights = np.arange(20) % 3 == 0, np.ones(20)
    task = ranking.make_task(data, 30, TOWER, 2.0)
    losses, margins = task.loss(model, (users, items, labels, weights))
    wrong = jax.nn.sigmoid(-margins)
    np.testing.assert_allclose(losses, -(wrong**2) * jnp.log1p(-wrong), rtol=1e-5)


class TestCheckpoints:
    """Four epochs at once, and the same stopped after two."""

    def test_a_stopped_run_goes_on_to_the_bit(self, task, tmp_path, monkeypatch):
        straight = training.train(task, OPTIONS)
        options = dataclasses.replace(OPTIONS, checkpoint_dir=tmp_path)
        with monkeypatch.context() as patch:
            stop_after(patch, 2)
            with pytest.raises(StoppedError):
                training.train(task, options)
        with monkeypatch.context() as patch:
            stop_after(patch, 2)
            resumed = training.train(task, options)
        assert_same(straight, resumed)
        # Done is done: nothing is left to train.
        with monkeypatch.context() as patch:
            stop_after(patch, 0)
            assert_same(straight, training.train(task, options))

    def test_only_whole_intervals_are_kept(self, task, tmp_path, monkeypatch):
        options = dataclasses.replace(OPTIONS, checkpoint_dir=tmp_path, checkpoint_every=2)
        with monkeypatch.context() as patch:
            stop_after(patch, 3)
            with pytest.raises(StoppedError):
                training.train(task, options)
        with monkeypatch.context() as patch:
            stop_after(patch, 2)
            training.train(task, options)

    def test_another_run_is_refused(self, task, tmp_path, monkeypatch):
        options = dataclasses.replace(OPTIONS, checkpoint_dir=tmp_path)
        stop_after(monkeypatch, 1)
        with pytest.raises(StoppedError):
            training.train(task, options)
        other = dataclasses.replace(options, learning_rate=0.25, first_seed=1)
        with pytest.raises(ValueError, match=r"first_seed is 0 there and 1 here; learning_rate is"):
            training.train(task, other)
        others = dataclasses.replace(task, candidates=task.candidates[::-1])
        with pytest.raises(ValueError, match=r"another run: data is [0-9a-f]{8} there"):
            training.train(others, options)


def test_a_batch_larger_than_the_training_set_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(recommendation, "load", lambda *args, **kwargs: toy_interactions())
    config = ncf.Config(dataset="movielens-100k", batch_size=100)
    assert ncf.load(config).steps_per_epoch == 1
    message = "^batch_size=101 must be at most the 100 training examples .*: give fewer.$"
    with pytest.raises(ValueError, match=message):
        ncf.load(dataclasses.replace(config, batch_size=101))


def test_the_command(tmp_path, capsys, monkeypatch):
    """One epoch of two steps, from files to a record and event files."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    ratings = [(u, 20 * u + k - 19, 5, k) for u in range(1, 7) for k in range(20)]
    text = "".join("\t".join(map(str, row)) + "\n" for row in ratings)
    (tmp_path / "u.data").write_text(text)
    arguments = (
        f"--dataset movielens-100k --data-dir {tmp_path} --epochs 1 --warmup-epochs 0 --seeds 2"
        f" --batch-size 500 --optimizer lamb_lawn --free-epochs 0 --loss focal --tower 8 4"
        f" --out {tmp_path}/runs.jsonl --tensorboard {tmp_path}/events"
    )
    ncf.main(tyro.cli(ncf.Config, args=arguments.split()))
    assert "| HR@10" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [0, 1]
    for line in lines:
        assert {"hr_at_10", "ndcg_at_10", "train_loss", "margin_p50"} <= line["final"].keys()
        assert line["final"] == {name: values[-1] for name, values in line["curve"].items()}
        assert str(tmp_path) not in json.dumps(line["config"])
    assert len(list((tmp_path / "events").glob("*/events.*"))) == 2
