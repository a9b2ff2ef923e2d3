"""The image task, and the command: batches, losses, metrics, and that a stopped run goes on."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tyro
from flax import nnx

from examples import cifar, training
from examples.tasks.bounded_weight_norm import BoundedWeightNorm
from examples.tasks.images import classification, data
from examples.tasks.images.layers import batch_norm
from examples.tasks.images.models import Network
from tests.examples.stopping import StoppedError, assert_same, stop_after

ARGUMENTS = (
    "--dataset generated --train-images 500 --validation-images 100 --model vgg5 --width 0.0625"
    " --dtype float32 --batch-size 200 --epochs 3 --warmup-epochs 0 --seeds 2 --free-epochs 1"
)


@pytest.fixture(scope="module")
def images():
    return data.load("generated", train_images=50, validation_images=7)


@pytest.fixture(scope="module")
def batch(images):
    batches = make_task(images).batches(jax.random.key(0))
    return jax.tree.map(lambda x: x[0], batches)


def make_task(images, **others):
    network = Network(model="vgg5", dtype="float32")
    arguments = {"batch_size": 16, "degrees": 0.0, "network": network}
    return classification.make_task(images, **(arguments | others))


def linear(x):
    """A stand-in for a network: ten sums over an image."""
    weights = np.random.default_rng(0).normal(size=(32 * 32 * 3, 10)) / 10
    return x.reshape(len(x), -1) @ weights.astype(np.float32)


class TestBatches:
    """50 images in batches of 16."""

    def test_whole_batches_of_different_images(self, images):
        task = make_task(images)
        batches = jax.jit(jax.vmap(task.batches))(jax.random.split(jax.random.key(0), 4))
        assert task.steps_per_epoch == 3
        assert {x.shape for x in jax.tree.leaves(batches)} == {(4, 3, 16)}
        epochs = np.asarray(batches.images).reshape(4, 48)
        assert all(len(set(epoch)) == 48 for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 4
        # What is left out differs too.
        assert len({frozenset(range(50)) - set(epoch) for epoch in epochs}) == 4

    def test_a_batch_larger_than_the_set(self, images):
        with pytest.raises(ValueError, match=r"batch_size=51 must be at most the 50"):
            make_task(images, batch_size=51)


class TestLoss:
    """Losses by their formulas, of what the network is shown."""

    @pytest.mark.parametrize(("gamma", "smoothing"), [(0.0, 0.0), (2.0, 0.0), (0.0, 0.05)])
    def test_losses_and_margins(self, images, batch, gamma, smoothing):
        shown = []
        model = lambda x: shown.append(x) or linear(x)
        task = make_task(images, gamma=gamma, label_smoothing=smoothing)
        losses, margins = task.loss(model, batch)
        logits, labels = np.asarray(linear(shown[0])), images.train.labels[batch.images]
        log_p = np.asarray(jax.nn.log_softmax(logits))
        own = np.take_along_axis(log_p, labels[:, None], 1)[:, 0]
        expected = -((1 - np.exp(own)) ** gamma) * own
        if smoothing:
            expected = -(1 - smoothing) * own - smoothing * log_p.mean(axis=1)
        np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)
        others = np.where(np.eye(10)[labels] > 0, -np.inf, logits).max(axis=1)
        own = np.take_along_axis(logits, labels[:, None], 1)[:, 0]
        np.testing.assert_allclose(margins, own - others, rtol=1e-5, atol=1e-5)

    def test_images_are_centred_by_the_mean_of_each_colour(self, images, batch):
        shown = []
        make_task(images, network=Network(model="vgg5")).loss(
            lambda x: shown.append(x) or linear(x), batch
        )
        mean = images.train.pixels.mean(axis=(0, 1, 2)) / 255
        assert shown[0].dtype == jnp.bfloat16
        # Black, which comes in from outside, is less than the mean by the mean.
        lowest = np.asarray(shown[0].astype(jnp.float32)).min(axis=(0, 1, 2))
        np.testing.assert_allclose(lowest, -mean, rtol=0.01)


def test_metrics_are_of_all_images_held_out(images, monkeypatch):
    # Three at a time, so that the last of seven images are filled up.
    monkeypatch.setattr(classification, "EVALUATED_AT_ONCE", 3)
    task = make_task(images)
    metrics = task.evaluate(linear)
    mean = images.train.pixels.mean(axis=(0, 1, 2)) / 255
    logits = linear(jnp.asarray(images.held_out.pixels / 255 - mean, jnp.float32))
    labels = images.held_out.labels
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    correct, confidence = p.argmax(1) == labels, p.max(1)
    bins = np.clip(np.ceil(15 * confidence).astype(int) - 1, 0, 14)
    ece = sum(abs((correct - confidence)[bins == b].sum()) for b in range(15)) / 7
    own = np.asarray(logits)[np.arange(7), labels]
    margins = own - np.where(np.eye(10)[labels] > 0, -np.inf, logits).max(axis=1)
    expected = {
        "accuracy": correct.mean(),
        "ece": ece,
        "nll": np.mean(nll),
        "held_out_margin_p50": np.median(margins),
        "held_out_flat_share": np.mean(margins >= 2.5),
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_bounded_network_keeps_its_batch_statistics():
    rngs = nnx.Rngs(0)
    norm = batch_norm(2, dtype="float32", rngs=rngs)
    linear = nnx.Linear(2, 2, kernel_init=lambda *_: jnp.eye(2), rngs=rngs)
    model = BoundedWeightNorm(nnx.Sequential(linear, norm))
    x = jnp.array([[0.0, 10.0], [2.0, 30.0]])
    model(x)
    np.testing.assert_allclose(norm.mean[...], [0.1, 2.0], rtol=1e-6)
    model.eval()
    # As evaluation does, where nothing may change.
    jax.lax.map(model, x[None])
    np.testing.assert_allclose(norm.mean[...], [0.1, 2.0], rtol=1e-6)


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    """Three epochs of two steps on generated images, from options to a record."""
    cifar.main(tyro.cli(cifar.Config, args=f"{ARGUMENTS} --out {tmp_path}/runs.jsonl".split()))
    assert "| accuracy, % " in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [0, 1]
    for line in lines:
        assert line["config"]["clip_norm"] == 1.0
        names = {"accuracy", "ece", "nll", "margin_p50", "flat_share", "train_loss"}
        assert names <= line["final"].keys()
        kernels = {k: v for k, v in line["curve"].items() if k.startswith("norm/")}
        # Four convolutions and the classifier, no bias and no normalisation, held from epoch 1 on.
        assert len(kernels) == 5
        for values in kernels.values():
            np.testing.assert_allclose(values[1:], values[0], rtol=1e-5)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_bit(tmp_path, monkeypatch):
    config = tyro.cli(cifar.Config, args=ARGUMENTS.split())
    task = cifar.make_task(config)
    straight = training.train(task, config)
    averages = jax.tree.leaves(straight.state.rest)
    assert len(averages) == 8
    assert all((np.asarray(x) != np.asarray(x).astype(bool)).any() for x in averages)
    config = dataclasses.replace(config, checkpoint_dir=tmp_path)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(StoppedError):
            training.train(task, config)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        assert_same(straight, training.train(task, config))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing=1.0 must be at least 0 and below 1"),
        ({"gamma": 0.0}, r"gamma=0.0 must be above 0"),
        ({"gamma": 5.0}, r"gamma=5.0 with loss='cross_entropy': it is of focal alone"),
        ({"rotation": -5.0}, r"rotation=-5.0 must lie between 0 and 180"),
        ({"rotation": float("nan")}, r"rotation=nan must lie between 0 and 180"),
        ({"width": 0.01}, r"width=0.01 must be at least 1/16"),
        ({"width": float("inf")}, r"width=inf must be at least 1/16"),
        ({"virtual_batch_size": 48}, r"virtual_batch_size=48 must divide batch_size=4096"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        cifar.Config(dataset="generated", **options)


def test_all_initial_weights_are_scaled(images):
    of_scale = functools.partial(Network, model="vgg5", width=1 / 16, dtype="float32")

    @jax.jit
    def weights():
        tasks = (make_task(images, network=of_scale(init_scale=scale)) for scale in (1.0, 0.25))
        return [nnx.as_pure(nnx.state(task.model(nnx.Rngs(0)), nnx.Param)) for task in tasks]

    first, scaled = weights()
    jax.tree.map(lambda w, v: np.testing.assert_array_equal(4 * w, v), scaled, first)
    assert {float(x.max()) for x in jax.tree.leaves(scaled) if x.ndim == 1} == {0.0, 0.25}


def test_cifar100_is_rotated_by_default():
    angles = [cifar.Config(dataset=name).degrees for name in ("cifar10", "cifar100")]
    assert angles == [0.0, 15.0]
    assert cifar.Config(dataset="cifar10", rotation=5.0).degrees == 5.0
