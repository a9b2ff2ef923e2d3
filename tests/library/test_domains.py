"""Constants outside of their domain are refused by name; traced and injected values pass."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import freeze

import lawn_optax as lo

NAN, INF = float("nan"), float("inf")
ADAM = {
    "learning_rate": [NAN, INF, "fast", None],
    "b1": [-1.0, 1.0, NAN],
    "b2": [-0.1, 1.0, 2],
    "eps": [-1.0, NAN, INF],
}
PRESETS = {
    "adam_lawn": (lambda **kw: lo.adam_lawn(switch=0, **kw), ADAM),
    "lamb_lawn": (lambda **kw: lo.lamb_lawn(switch=0, **kw), ADAM),
    "sgd_lawn": (
        lambda **kw: lo.sgd_lawn(switch=0, **kw),
        {"learning_rate": [NAN, -INF], "momentum": [-0.1, 1.0, NAN]},
    ),
    "lamb_plus": (
        lo.lamb_plus,
        {**ADAM, "weight_decay": [-0.1, NAN], "max_ratio": [0.0, -1.0, NAN]},
    ),
    "hyperball": (
        lambda **kw: lo.hyperball(optax.scale_by_adam(), **kw),
        {"learning_rate": [NAN, INF], "target_scale": [0.0, NAN]},
    ),
}
CASES = [
    (preset, name, value)
    for preset, (_, domains) in PRESETS.items()
    for name, values in domains.items()
    for value in values
]


@pytest.mark.parametrize(("preset", "name", "value"), CASES)
def test_a_constant_out_of_its_domain_is_refused_by_name(preset, name, value):
    make, _ = PRESETS[preset]
    with pytest.raises(ValueError, match=rf"^{name}={value!r} must be "):
        make(**{"learning_rate": 0.1, name: value})


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", [np.array, jnp.array, list])
def test_an_array_is_no_constant(preset, kind):
    """It would give updates another shape."""
    make, _ = PRESETS[preset]
    with pytest.raises(ValueError, match=r"^learning_rate has shape \(3,\) and must be one number"):
        make(learning_rate=kind([0.1, 0.2, 0.3]))


def test_nor_is_it_a_target_scale():
    with pytest.raises(ValueError, match=r"^target_scale has shape \(2,\) and must be one number"):
        lo.adam_lawn(0.1, 0, target_scale=np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: lo.sgd_lawn(0.1, 0, nesterov="no"),
        lambda: lo.muon_h(0.1, adam_learning_rate=0.1, nesterov="no"),
    ],
)
def test_a_word_is_no_flag(make):
    with pytest.raises(TypeError, match="nesterov='no' must be True or False"):
        make()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("rate", [0.0, -0.1, 1, np.float32(0.1), optax.constant_schedule(0.1)])
def test_rates_of_every_kind_pass(preset, rate):
    PRESETS[preset][0](learning_rate=rate)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lo.schedules.warmup_linear_decay(NAN, 1, 2), "peak_value=nan must be finite"),
        (
            lambda: lo.schedules.warmup_polynomial_decay(1.0, 1, 2, end_value=INF),
            "end_value=inf must be finite",
        ),
        (
            lambda: lo.schedules.warmup_polynomial_decay(1.0, 1, 2, power=0),
            "power=0 must be positive",
        ),
        (
            lambda: lo.schedules.warmup_polynomial_decay(1.0, 1, 2, warmup_power=NAN),
            "warmup_power=nan must be positive",
        ),
        (lambda: lo.at_median_margin(NAN), "threshold=nan must be finite"),
        (lambda: lo.at_median_margin(decay=1.0), "decay=1.0 must be at least 0 and below 1"),
        (lambda: lo.at_median_margin(min_steps=-1), "min_steps=-1 must be at least 0"),
        (lambda: lo.baselines.abel(0), "steps_per_epoch=0 must be at least 1"),
        (lambda: lo.baselines.abel(1, decay_factor=NAN), "decay_factor=nan must be between"),
        (lambda: lo.baselines.abel(1, last_decay_step=-1), "last_decay_step=-1 must be at least 0"),
    ],
)
def test_switches_schedules_and_baselines_refuse_too(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_traced_and_injected_values_pass():
    params = {"w": jnp.ones((2, 2), jnp.bfloat16)}
    make = optax.inject_hyperparams(lo.adam_lawn)  # b2 rounds to 1 in bfloat16
    make(0.1, 0).init(params)

    @jax.jit
    def step(rate, b1):
        tx = lo.adam_lawn(rate, 0, b1=b1)
        return tx.update(params, tx.init(params), params)[0]

    assert step(0.1, 0.9)["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("preset", PRESETS)
def test_updates_keep_their_dtype_whatever_the_rate_is(preset, kind):
    params = {"w": jnp.ones((2, 2), jnp.bfloat16)}
    tx = PRESETS[preset][0](learning_rate=kind(0.1))
    updates, _ = tx.update(params, tx.init(params), params)
    expected = jnp.float32 if kind is jnp.float32 and preset != "hyperball" else jnp.bfloat16
    assert updates["w"].dtype == expected  # a JAX scalar of float32 promotes, as in Optax


PARAMS = {"w": jnp.ones((4, 3)), "v": jnp.ones((2, 2))}
WHOLE = {
    "lawn": lambda: lo.adam_lawn(0.1, 0),
    "hyperball": lambda: lo.hyperball(optax.scale_by_adam(), 0.1),
    "adam_h": lambda: lo.adam_h(0.1, 0.1, labels={"v": "other"}),
    "muon_h": lambda: lo.muon_h(0.1, 0.1, labels={"v": "other"}),
}


@pytest.mark.parametrize("make", WHOLE)
@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"w": None, "v": PARAMS["v"]}, r"updates have nothing for parameter 'w'.*optax.masked"),
        ({"w": PARAMS["w"]}, r"updates have nothing for parameter 'v': they have 'w'"),
        (
            {"w": PARAMS["w"], "v": optax.MaskedNode()},
            r"updates have nothing for parameter 'v': they have 'w'",
        ),
        (PARAMS["w"], r"updates have nothing for parameter 'v'"),
        (PARAMS | {"u": PARAMS["w"]}, r"updates have an entry 'u', which is not a parameter"),
        (PARAMS | {"w": jnp.ones((1, 3))}, r"'w' has shape \(4, 3\) and its update \(1, 3\): give"),
        (PARAMS | {"v": jnp.ones((2, 3))}, r"'v' has shape \(2, 2\) and its update \(2, 3\): give"),
    ],
)
def test_updates_that_are_another_tree_are_named(grads, message, make):
    tx = WHOLE[make]()
    with pytest.raises(ValueError, match=message):
        tx.update(grads, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("make", WHOLE)
def test_other_containers_are_said_beside_the_error_and_not_in_its_place(make):
    tx = WHOLE[make]()
    with pytest.raises(ValueError, match="FrozenDict") as caught:  # Optax's own
        tx.update(freeze(PARAMS), tx.init(PARAMS), PARAMS)
    (note,) = caught.value.__notes__
    assert note.startswith("updates, a FrozenDict, and params, a dict, have the same leaves")


def test_an_error_of_the_inner_optimizer_stays_itself():
    def fail(*_):
        raise RuntimeError("a fault of its own")

    inner = optax.GradientTransformation(lambda params: optax.EmptyState(), fail)
    tx = lo.lawn(inner, 0)
    with pytest.raises(RuntimeError, match="a fault of its own"):
        tx.update(freeze(PARAMS), tx.init(PARAMS), PARAMS)


def test_numpy_constants_leave_dtypes_alone(x64):
    params = {"w": jnp.ones((2, 2))}
    tx = optax.chain(
        optax.sgd(0.1), lo.baselines.abel(1, decay_factor=np.float64(0.1), last_decay_step=0)
    )
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.01)


def test_a_function_among_the_parameters_is_named():
    with pytest.raises(TypeError, match=r"parameter 'act' is a .* and not an array.*eqx.filter"):
        lo.adam_lawn(0.1, 0).init({"w": PARAMS["w"], "act": jax.nn.relu})


def test_a_state_restored_as_plain_containers_is_told_how_to_restore_it():
    tx = lo.adam_lawn(0.1, 0)
    plain = tx.init(PARAMS)._asdict()
    with pytest.raises(TypeError, match=r"state is a dict.*jax.eval_shape\(tx.init, params\)"):
        tx.update(PARAMS, plain, PARAMS)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: lo.hyperball(0.1, optax.scale_by_adam()),
            TypeError,
            r"inner=0.1 must be .*, such as optax.scale_by_adam\(\), without a learning rate",
        ),
        (
            lambda: lo.adam_lawn(0.1, lo.at_flattening),
            TypeError,
            r"switch=<function at_flattening .* Call it: at_flattening\(\.\.\.\)",
        ),
        (lambda: lo.except_paths(["w"]), TypeError, r"patterns=\(\['w'\],\) must be strings"),
        (
            lambda: lo.adam_lawn(0.1, 0, mask="w").init(PARAMS),
            TypeError,
            r"mask has 'w' for parameter .*; by name, give only_paths\('w'\)",
        ),
        (
            lambda: lo.adam_h(0.1, 0.1, groups={"router": optax.adam(0.1)}).init(PARAMS),
            ValueError,
            r"groups has 'router', and labels=None gives it no parameter: .*labels=",
        ),
        (
            lambda: lo.adam_lawn(0.1, 0, axis_name="model").update(
                PARAMS, lo.adam_lawn(0.1, 0).init(PARAMS), PARAMS
            ),
            ValueError,
            r"axis_name: unbound axis name: model. .*leave it out under jit",
        ),
    ],
)
def test_a_likely_mistake_is_told_its_remedy(call, error, message):
    with pytest.raises(error, match=message):
        call()
