"""LAWN's rivals by Nado et al.: their optimizers against float64, their settings, a run of each."""

import dataclasses
import re
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from examples import imagenet
from examples.tasks.images import large_batch
from examples.training import limits
from examples.training.learning_rate import make_schedule
from examples.training.optimizers import make_optimizer
from examples.training.options import Options
from examples.training.traits import OptimizerName

UPDATES_PER_EPOCH = 6
SHORT = {"epochs": 3, "warmup_epochs": 1.0, "decay_epochs": 2.5}
SHAPES = {"conv": {"kernel": (3, 4, 5), "bias": (5,)}, "bn": {"scale": (5,), "bias": (5,)}}


def numpy_rate(options, t):
    """The head of `lawn_optax.schedules`, from Nado et al., Appendix E."""
    warmup, end = (round(x * UPDATES_PER_EPOCH) for x in (1.0, 2.5))
    peak = options.learning_rate
    if t < warmup:
        start = options.initial_rate
        return start + (peak - start) * (t / warmup) ** options.warmup_power
    s = min((t - warmup) / (end - warmup), 1.0)
    cosine = options.schedule == "cosine"
    falling = (1 + np.cos(np.pi * s)) / 2 if cosine else (1 - s) ** options.decay_power
    return options.final_rate + (peak - options.final_rate) * falling


def numpy_step(name, options, decay, w, g, t, state):
    """One update of a leaf from its paper's equations; `state` is what it keeps."""
    rate, mu = numpy_rate(options, t), options.momentum
    l2 = options.decay_form == "l2" or (
        options.decay_form is None and name in ("sgd", "nesterov", "lars")
    )
    g = g + decay * w if l2 else g
    ratio = lambda r: np.linalg.norm(w) / np.linalg.norm(r)
    if name == "lars":  # The momentum is of steps, each with the rate of its time.
        state["m"] = mu * state.get("m", 0.0) + rate * 0.001 * ratio(g) * g
        return w - state["m"]
    if name in ("sgd", "nesterov"):
        m = state["m"] = mu * state.get("m", 0.0) + g
        r = g + mu * m if name == "nesterov" else m
    else:
        m = state["m"] = options.b1 * state.get("m", 0.0) + (1 - options.b1) * g
        v = state["v"] = options.b2 * state.get("v", 0.0) + (1 - options.b2) * g**2
        m_hat, v_hat = m / (1 - options.b1 ** (t + 1)), v / (1 - options.b2 ** (t + 1))
        r = m_hat / (np.sqrt(v_hat) + (1e-6 if name == "lamb" else options.adam_eps))
    r = r if l2 else r + decay * w
    return w - rate * (ratio(r) if name == "lamb" else 1.0) * r


def numpy_train(options, params, gradients):
    """All updates: decay is of kernels, another optimizer of all other leaves."""
    states = [{} for _ in jax.tree.leaves(params)]
    for t, gradient in enumerate(gradients):
        leaves, paths = [], jax.tree.leaves_with_path(params)
        for (path, w), g, state in zip(paths, jax.tree.leaves(gradient), states, strict=True):
            is_kernel = "kernel" in jax.tree_util.keystr(path)
            name = options.optimizer if is_kernel else options.bias_optimizer or options.optimizer
            decay = options.weight_decay if is_kernel or options.decay_vectors else 0.0
            leaves.append(numpy_step(name, options, decay, w, g, t, state))
        params = jax.tree.unflatten(jax.tree.structure(params), leaves)
    return params


def small(recipe):
    """A recipe on a batch and a schedule that a test has time for."""
    changes = {"batch_size": 64, "accumulate": 1, "virtual_batch_size": 32} | SHORT
    return imagenet.Config(**{**recipe.options, **changes})


EACH = {
    **{name: small(recipe) for name, recipe in large_batch.RECIPES.items()},
    "nesterov, decoupled": Options(
        optimizer="nesterov", weight_decay=0.05, decay_form="decoupled", learning_rate=0.1, **SHORT
    ),
    "adam, l2 of all": Options(
        optimizer="adam",
        weight_decay=0.1,
        decay_form="l2",
        decay_vectors=True,
        b1=0.8,
        b2=0.95,
        **SHORT,
    ),
    "sgd, adam": Options(optimizer="sgd", bias_optimizer="adam", learning_rate=0.1, **SHORT),
}


@pytest.mark.parametrize("name", EACH)
def test_updates_are_those_of_the_equations(name):
    options, rng = EACH[name], np.random.default_rng(0)
    draw = lambda *lead: jax.tree.map(
        lambda shape: rng.normal(size=(*lead, *shape)).astype(np.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    params, gradients = draw(), draw(3 * UPDATES_PER_EPOCH)
    tx = make_optimizer(options.static_options(UPDATES_PER_EPOCH), options.hyperparameters())

    @jax.jit
    def train(params):
        def step(carry, gradient):
            updates, state = tx.update(gradient, carry[1], carry[0], margin=0.0)
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), gradients)[0][0]

    wide = jax.tree.map(np.float64, (params, gradients))
    each = [jax.tree.map(lambda g: g[t], wide[1]) for t in range(3 * UPDATES_PER_EPOCH)]  # noqa: B023
    expected, found = numpy_train(options, wide[0], each), train(params)
    for path, w in jax.tree.leaves_with_path(expected):
        leaf = dict(jax.tree.leaves_with_path(found))[path]
        np.testing.assert_allclose(leaf, w, rtol=2e-5, atol=2e-5 * np.abs(w).max(), err_msg=path)


def test_lars_is_that_of_optax_for_weights_that_begin_at_0_too():
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2), "still": jnp.ones(2)}
    grads = {"kernel": jnp.full((3, 2), 0.3), "bias": jnp.ones(2), "still": jnp.zeros(2)}
    options = Options(optimizer="lars", learning_rate=0.5, final_rate=0.5, warmup_epochs=0.0)
    ours = make_optimizer(options.static_options(2), options.hyperparameters())
    theirs = optax.lars(0.5)
    of_ours, of_theirs = params, params
    ours_state, theirs_state = ours.init(params), theirs.init(params)
    for _ in range(3):
        update, ours_state = ours.update(grads, ours_state, of_ours, margin=0.0)
        of_ours = optax.apply_updates(of_ours, update)
        update, theirs_state = theirs.update(grads, theirs_state, of_theirs)
        of_theirs = optax.apply_updates(of_theirs, update)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), of_ours, of_theirs)


@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
def test_no_option_of_an_optimizer_is_ignored(optimizer):
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}

    def program(**options):
        options = Options(optimizer=optimizer, free_epochs=1.0, **options)
        tx = make_optimizer(options.static_options(2), options.hyperparameters())
        update = lambda state: tx.update(params, state, params, margin=0.0, value=0.0)
        return re.sub("0x[0-9a-f]+", "", str(jax.make_jaxpr(update)(tx.init(params))))

    as_it_is = program()
    for name, (having, chosen_by) in limits.of(Options, limits.Only).items():
        if "optimizer" not in chosen_by:
            continue
        other = {name: False if name == "project" else 0.5}
        if optimizer in having:
            assert program(**other) != as_it_is, name
        else:
            with pytest.raises(ValueError, match="alone; leave it at"):
                program(**other)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        # Table 5: the first, the peak and the last rate, each at its update.
        ("nesterov-32k-a", {0: 0.12, 638: 7.05, 2512: 6e-6, 2534: 6e-6}),
        ("nesterov-32k-b", {0: 0.0, 706: 7.05, 2512: 6e-6}),
        ("lars-32k", {0: 0.0, 353: 14.5, 706: 29.0, 2512: 1e-4}),
        ("adam-1e-6-32k-6000", {0: 0.003332, 3000: 0.001666, 6000: 0.0}),
    ],
)
def test_schedules_are_at_their_rates_when_the_tables_say(name, rates):
    options = imagenet.read_command_line([name])
    static = options.static_options(large_batch.UPDATES_PER_EPOCH)
    assert options.epochs == -(-max(rates) // large_batch.UPDATES_PER_EPOCH)
    schedule = make_schedule(static, options.learning_rate)
    for update, rate in rates.items():
        np.testing.assert_allclose(schedule(jnp.array(update)), rate, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("lars-32k", "vgg5"),
        pytest.param("nesterov-32k-a", "resnet18", marks=pytest.mark.slow),
        pytest.param("lamb-adam-1e-6-32k-6000", "vgg5", marks=pytest.mark.slow),
    ],
)
def test_a_setting_trains(name, model, tmp_path):
    out = tmp_path / "runs.jsonl"
    options = dataclasses.replace(
        small(large_batch.RECIPES[name]),
        **{"dataset": "generated", "train_images": 128, "image_size": 32, "width": 1 / 16},
        **{"model": model, "dtype": "float32", "learning_rate": 1e-3, "out": out},
    )
    imagenet.main(options)
    assert '"accuracy"' in out.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, r"momentum=1.0 must be at least 0 and below 1"),
        ({"decay_power": 0.0}, r"decay_power=0.0 must be above 0"),
        ({"final_rate": -1.0}, r"final_rate=-1.0 must be at least 0, and finite"),
        (
            {"schedule": "cosine", "decay_power": 2.0},
            r"decay_power=2.0 with schedule='cosine': it is of polynomial alone; leave it at 1.0",
        ),
        ({"schedule": "simple", "final_rate": 0.1}, r"it is of polynomial and cosine alone"),
        ({"schedule": "step-wise", "decay_epochs": 2.0}, r"decay_epochs=2.0 with schedule='step-"),
        ({"schedule": "simple", "decays_at": (0.5,)}, r"it is of step-wise alone"),
        ({"decay_factor": 0.5}, r"decay_factor=0.5 with schedule='polynomial'"),
        ({"decay_epochs": 0.5}, r"decay_epochs=0.5 must lie between warmup_epochs=1.0 and"),
        (
            {"optimizer": "lars", "decay_form": "decoupled"},
            r"decay_form='decoupled' with optimizer='lars': it has 'l2' alone",
        ),
        ({"decay_form": "l2"}, r"with optimizer='adam_lawn': it has no decay"),
        ({"optimizer": "muon", "bias_optimizer": "sgd"}, r"biases have Adam there"),
        (
            {"optimizer": "lars", "bias_optimizer": "sgd", "decay_vectors": True},
            r"bias_optimizer='sgd': biases have no decay there",
        ),
        ({"optimizer": "adam", "momentum": 0.5}, r"with optimizer='adam': it is of sgd and"),
        ({"optimizer": "lars", "bias_optimizer": "sgd", "b2": 0.5}, r"bias_optimizer='sgd': it is"),
        ({"adam_eps": 1e-3}, r"adam_eps=0.001 with optimizer='adam_lawn'"),
        ({"optimizer": "adam", "norms_scale": 2.0}, r"it is of adam_lawn and lamb_lawn and sgd_la"),
        ({"warmup_epochs": 0.0, "warmup_power": 2.0}, r"with warmup_epochs=0.0: there is no warm"),
        ({"warmup_epochs": 0.0, "initial_rate": 0.1}, r"initial_rate=0.1 with warmup_epochs=0.0"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)
