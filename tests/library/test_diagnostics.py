"""Diagnostics: the summary table, and numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from lawn_optax import diagnostics
from tests.helpers import norm, train

PARAMS = {"dense": {"kernel": jnp.array([[3.0, 0.0], [4.0, 1.0]]), "bias": jnp.array([2.0, 0.0])}}


def test_describe_tells_of_each_leaf():
    tx = lo.adam_lawn(0.1, 2, axes=0)
    bias, kernel = lo.describe(PARAMS, tx.init(PARAMS), axes=0)
    assert (bias.path, bias.shape, bias.constrained, bias.axes, bias.captured) == (
        "dense/bias",
        (2,),
        False,
        None,
        None,
    )
    assert (kernel.path, kernel.shape, kernel.constrained, kernel.axes, kernel.captured) == (
        "dense/kernel",
        (2, 2),
        True,
        (0,),
        None,
    )
    assert bias.norm == 2
    np.testing.assert_allclose(kernel.norm, [5.0, 1.0])


def test_describe_shows_captured_norms():
    history, state = train(lo.adam_lawn(0.1, 2, axes=0), PARAMS, lambda t, p: p, 4)
    _, kernel = lo.describe(history[-1], state, axes=0)
    np.testing.assert_allclose(kernel.captured, norm(history[1]["dense"]["kernel"], 0), rtol=1e-6)
    np.testing.assert_allclose(kernel.captured, kernel.norm, rtol=3e-6)


def test_the_table_prints():
    _, state = train(lo.adam_lawn(0.1, 0), PARAMS, lambda t, p: p, 1)
    assert repr(lo.describe(PARAMS, state)).splitlines() == [
        "parameter     shape   constrained  axes    norm   captured  why",
        "------------  ------  -----------  ------  -----  --------  ------",
        "dense/bias    (2,)    free         -       2      -         rank 1",
        "dense/kernel  (2, 2)  yes          (0, 1)  5.099  5.099     rank 2",
    ]


def test_a_leaf_of_zeros_is_said_to_stay_free():
    params = {"lora_a": jnp.ones((2, 2)), "lora_b": jnp.zeros((2, 2))}
    _, state = train(lo.adam_lawn(0.1, 0), params, lambda t, p: p, 1)
    _, zeros = str(lo.describe(params, state)).splitlines()[-2:]
    assert "0, stays free" in zeros


def test_a_leaf_without_norms_prints_none():
    row = str(lo.describe({"embedding": jnp.zeros((0, 3))}, axes=1)).splitlines()[-1]
    assert " ".join(row.split()) == "embedding (0, 3) yes (1,) none not yet rank 2"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: tx,
        lambda tx: optax.chain(optax.clip(1.0), tx),
        lambda tx: optax.apply_if_finite(tx, 5),
        lambda tx: optax.MultiSteps(tx, 1).gradient_transformation(),
        lambda tx: optax.masked(tx, True),
        lambda tx: lo.lawn(optax.chain(optax.sgd(0.1), lo.rescale_to_norms()), 0),
    ],
)
def test_norms_are_found_wherever_the_state_is(wrap):
    history, state = train(wrap(lo.adam_lawn(0.1, 0)), PARAMS, lambda t, p: p, 2)
    assert list(diagnostics.captured_norms(state)) == ["dense/kernel"]
    assert lo.describe(history[-1], state)[1].captured is not None
    assert diagnostics.is_constrained(state)


def test_norms_of_several_optimizers_are_put_together():
    tx = optax.partition(
        {"a": lo.adam_lawn(0.1, 0), "b": lo.sgd_lawn(0.1, 3)}, {"x": "a", "y": "b"}
    )
    params = {"x": jnp.ones((2, 2)), "y": jnp.ones((3, 3))}
    _, state = train(tx, params, lambda t, p: p, 2)
    assert list(diagnostics.captured_norms(state)) == ["x"]
    assert not diagnostics.is_constrained(state)
    _, state = train(tx, params, lambda t, p: p, 5)
    assert set(diagnostics.captured_norms(state)) == {"x", "y"}
    assert diagnostics.is_constrained(state)


def test_free_steps_of_runs_side_by_side_and_of_several_optimizers():
    run = lambda switch: train(lo.adam_lawn(0.1, switch), PARAMS, lambda t, p: p, 5)[1]
    states = jax.tree.map(lambda *x: jnp.stack(x), run(0), run(3), run(9))
    np.testing.assert_array_equal(diagnostics.free_steps(states), [0, 3, 5])
    assert diagnostics.free_steps((run(1), run(4))) == 4
    with pytest.raises(ValueError, match="state holds no LawnState"):
        diagnostics.free_steps(optax.adam(0.1).init(PARAMS))


def test_the_state_tells_what_is_constrained():
    params = {"embedding": jnp.ones((6, 4)), "out": {"kernel": jnp.ones((4, 2))}}
    for tx in (
        lo.adam_lawn(0.1, 1, mask=lo.except_paths("embedding")),
        optax.masked(lo.adam_lawn(0.1, 1), {"embedding": False, "out": True}),
    ):
        for state in (tx.init(params), train(tx, params, lambda t, p: p, 2)[1]):
            embedding, kernel = lo.describe(params, state)
            assert (embedding.constrained, kernel.constrained) == (False, True)
            assert embedding.captured is None


def test_a_description_that_is_not_the_optimizers_is_refused():
    state = lo.adam_lawn(0.1, 1, axes=0).init(PARAMS)
    with pytest.raises(
        ValueError, match=r"'dense/kernel' has norms of shape \(\); in the .* \(2,\)"
    ):
        lo.describe(PARAMS, state)
    state = lo.adam_lawn(0.1, 1).init(PARAMS)
    with pytest.raises(ValueError, match=r"'dense/bias' has norms .* it is free. Give describe"):
        lo.describe(PARAMS, state, mask={"dense": True})


def test_runs_side_by_side_are_described_as_stacked():
    tx = lo.adam_lawn(0.1, 0)
    runs = jax.tree.map(lambda w: jnp.stack([w, 2 * w]), PARAMS)
    _, state = jax.vmap(lambda p: tx.update(p, tx.init(p), p))(runs)
    with pytest.raises(ValueError, match=r"or stacked=1 for runs side by side under jax.vmap"):
        lo.describe(runs, state)
    assert lo.describe(runs, state, stacked=1)[1].captured.shape == (2,)


def test_a_state_without_norms_is_named():
    state = optax.adam(0.1).init(PARAMS)
    with pytest.raises(ValueError, match="state holds no norms"):
        diagnostics.captured_norms(state)
    with pytest.raises(ValueError, match="state holds no LawnState"):
        diagnostics.is_constrained(state)


def test_norm_drift_by_hand():
    _, state = train(lo.adam_lawn(0.1, 0), PARAMS, lambda t, p: p, 1)
    doubled = jax.tree.map(lambda w: 2 * w, PARAMS)
    np.testing.assert_allclose(
        diagnostics.norm_drift(doubled, state)["dense/kernel"], 1.0, rtol=1e-5
    )
    half = diagnostics.norm_drift(doubled, state, target_scale=2.0)
    np.testing.assert_allclose(half["dense/kernel"], 0.0, atol=1e-6)


def test_between_a_mark_and_its_switch_norms_are_known_and_nothing_drifts():
    tx = lo.adam_lawn(0.1, lo.at_step(4, norms_of=2))
    for steps, known, switched in ((2, False, False), (3, True, False), (5, True, True)):
        history, state = train(tx, PARAMS, lambda t, p: p, steps)
        assert bool(diagnostics.captured_norms(state)) == known
        table = lo.describe(history[-1], state)
        assert [leaf.marked for leaf in table] == [False, known and not switched]
        assert (", marked" in str(table)) == (known and not switched)
        assert bool(diagnostics.norm_drift(history[-1], state)) == switched
        assert diagnostics.is_constrained(state) == switched


def test_gradient_cosine_by_hand():
    w, g = jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 1.0]])
    np.testing.assert_allclose(
        diagnostics.gradient_cosine({"w": w}, {"w": g})["w"], 0.5**0.5, rtol=1e-6
    )
    assert diagnostics.gradient_cosine({"w": w}, {"w": 0 * g})["w"] == 0


@pytest.mark.parametrize("angle", [1e-5, 0.1, 1.0, 3.0])
def test_angular_step_by_hand(angle):
    w = jnp.array([[1.0, 0.0]])
    after = 2 * jnp.array([[jnp.cos(angle), jnp.sin(angle)]])
    step = diagnostics.angular_step({"w": w}, {"w": after - w})["w"]
    np.testing.assert_allclose(step, angle, rtol=1e-4)


def test_escape_value_against_the_formed_matrices(x64):
    key_x, key_w, key = jax.random.split(jax.random.key(0), 3)
    x, y = jax.random.normal(key_x, (20, 4)), jnp.sin(jnp.arange(20.0))
    params = {"w": jax.random.normal(key_w, (4,))}
    loss = lambda p, example: jnp.square(jnp.tanh(example[0] @ p["w"]) - example[1])
    eta, batch, m = 0.3, 4, 20

    flat = lambda w, example: loss({"w": w}, example)
    mean = lambda w: jnp.mean(jax.vmap(flat, (None, 0))(w, (x, y)))
    hessian = jax.jit(jax.hessian(mean))(params["w"])
    grads = jax.jit(jax.vmap(jax.grad(flat), (None, 0)))(params["w"], (x, y))
    centred = grads - grads.mean(0)
    step = np.eye(4) - eta * hessian
    matrix = step @ step + eta**2 * (m - batch) / (batch * (m - 1)) * centred.T @ centred / m
    expected = np.linalg.eigvalsh(matrix)[-1]

    value = diagnostics.escape_value(
        loss, params, (x, y), learning_rate=eta, batch_size=batch, key=key, iterations=300
    )
    np.testing.assert_allclose(value, expected, rtol=1e-8)


def test_escape_value_refuses_a_batch_that_does_not_fit():
    with pytest.raises(ValueError, match=r"batch_size=9 must be between 1 and .* 8"):
        diagnostics.escape_value(
            lambda p, x: p["w"].sum(),
            {"w": jnp.ones(2)},
            jnp.ones(8),
            learning_rate=0.1,
            batch_size=9,
            key=jax.random.key(0),
        )


def test_sharpness_against_the_formed_hessian(x64):
    x = jax.random.normal(jax.random.key(0), (20, 3), jnp.float64)
    loss = lambda p: jnp.mean(jnp.log1p(jnp.exp(-jnp.tanh(x @ p["a"]) @ p["b"])))
    params = {
        "a": jax.random.normal(jax.random.key(1), (3, 4), jnp.float64),
        "b": jax.random.normal(jax.random.key(2), (4,), jnp.float64),
    }
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    expected = np.linalg.eigvalsh(jax.jit(jax.hessian(lambda w: loss(unravel(w))))(flat))[::-1]
    found = jax.jit(
        lambda p: diagnostics.sharpness(loss, p, key=jax.random.key(3), count=3, iterations=16)
    )(params)
    np.testing.assert_allclose(found, expected[:3], rtol=1e-8)


def test_sharpness_of_more_iterations_than_there_are_weights():
    found = diagnostics.sharpness(lambda w: jnp.sum(w**2), jnp.ones(2), key=jax.random.key(0))
    np.testing.assert_allclose(found, [2.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("diagonal", "count"),
    [
        (jnp.zeros(100).at[:3].set(jnp.array([5.0, 2.0, 1.0])), 4),  # Of low rank.
        (-jnp.ones(50), 2),
        (2 * jnp.ones(3), 3),  # One eigenvalue, three times.
        (jnp.zeros(40), 1),
        (jnp.ones(60).at[0].set(1e4), 2),
    ],
)
def test_sharpness_of_few_distinct_eigenvalues(diagonal, count):
    loss = lambda w: 0.5 * jnp.sum(diagonal * w**2)
    for seed in range(3):
        found = diagnostics.sharpness(
            loss, jnp.ones(diagonal.size), key=jax.random.key(seed), count=count
        )
        expected = np.sort(diagonal)[::-1][:count]
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(diagonal).max())


@pytest.mark.parametrize("examples", [1, 5, 20])
def test_sharpness_of_least_squares_with_few_examples(examples):
    x = jax.random.normal(jax.random.key(99), (examples, 100))
    found = diagnostics.sharpness(
        lambda w: 0.5 * jnp.mean((x @ w - 1) ** 2), jnp.zeros(100), key=jax.random.key(0)
    )
    expected = np.linalg.eigvalsh(np.asarray(x, np.float64) @ np.asarray(x.T) / examples)[-1]
    np.testing.assert_allclose(found, [expected], rtol=1e-4)


def test_sharpness_and_escape_value_take_bfloat16_in_float32():
    w = jnp.ones(3, jnp.bfloat16)
    loss = lambda w: jnp.sum(jnp.array([1.0, 2.0, 5.0]) * w**2) / 2
    found = diagnostics.sharpness(loss, w, key=jax.random.key(0), count=2)
    np.testing.assert_allclose(found, [5.0, 2.0], rtol=1e-5)
    value = diagnostics.escape_value(
        lambda w, x: loss(w),
        w,
        jnp.zeros(2),
        learning_rate=1.0,
        batch_size=2,
        key=jax.random.key(0),
        iterations=100,
    )
    np.testing.assert_allclose(value, 16.0, rtol=1e-5)  # (1 - 5)^2


def test_escape_value_where_a_step_leads_straight_to_the_minimum():
    value = diagnostics.escape_value(
        lambda w, x: jnp.sum((w - x) ** 2) / 2,
        jnp.zeros(1),
        jnp.array([[-1.0], [1.0]]),
        learning_rate=1.0,
        batch_size=2,
        key=jax.random.key(0),
    )
    assert value == 0


def test_sharpness_refuses_more_eigenvalues_than_weights():
    with pytest.raises(ValueError, match="count=2 must be at most the number of weights, 1"):
        diagnostics.sharpness(jnp.sum, jnp.ones(1), key=jax.random.key(0), count=2)


def test_sharpness_refuses_fewer_iterations_than_eigenvalues():
    with pytest.raises(ValueError, match=r"count=3 must be at least 1, and iterations=2"):
        diagnostics.sharpness(jnp.sum, jnp.ones(5), key=jax.random.key(0), count=3, iterations=2)


def test_a_report_of_one_update():
    params = PARAMS["dense"] | {"other": 2 * PARAMS["dense"]["kernel"]}
    grads = jax.tree.map(lambda w: w + 1, params)
    tx = lo.adam_lawn(0.1, 0)
    updates, state = tx.update(grads, tx.init(params), params)
    margins = jnp.linspace(0.0, 4.0, 101)
    report = jax.jit(diagnostics.step_report)(params, grads, updates, state, margins)
    w, u, g = params["kernel"], updates["kernel"], grads["kernel"]
    expected = {
        "norm/kernel": norm(w),
        "share/kernel": 0.2,  # beside a leaf twice as long
        "captured/kernel": norm(w),
        "cos_wg/kernel": jnp.vdot(w, g) / (norm(w) * norm(g)),
        "relative_step/kernel": norm(u) / norm(w),
        "gradient_norm": optax.tree.norm(grads),
        "margin_p10": 0.4,
        "margin_p50": 2.0,
        "margin_p90": 3.6,
        "flat_share": 38 / 101,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(report[name], value, rtol=1e-5, err_msg=name)
    change = norm(w + u) ** 2 - norm(w) ** 2
    terms = report["radial/kernel"] + report["squared_step/kernel"]
    np.testing.assert_allclose(terms, change, atol=1e-5)
    angle = diagnostics.angular_step(params, updates)["kernel"]
    np.testing.assert_allclose(report["angle/kernel"], angle, rtol=1e-6)


def test_a_report_needs_neither_state_nor_margins():
    params = {"kernel": jnp.eye(2)}
    report = diagnostics.step_report(params, params, params)
    assert not {name for name in report if name.startswith(("captured", "margin", "flat"))}


def test_a_group_without_parameters_has_no_norms_to_report():
    params = {"kernel": jnp.eye(2)}
    groups = {"used": lo.adam_lawn(0.1, 0), "unused": lo.adam_lawn(0.1, 0)}
    tx = optax.partition(groups, {"kernel": "used"})
    updates, state = tx.update(params, tx.init(params), params)
    report = jax.jit(diagnostics.step_report)(params, params, updates, state)
    np.testing.assert_allclose(report["captured/kernel"], np.sqrt(2), rtol=1e-6)
    assert diagnostics.captured_norms(state).keys() == {"kernel"}


def test_margins_that_are_nan_do_not_count():
    params = {"kernel": jnp.eye(2)}
    report = diagnostics.step_report(
        params, params, params, margins=jnp.array([0.0, 2.0, 4.0, jnp.nan])
    )
    assert report["margin_p50"] == 2
    np.testing.assert_allclose(report["flat_share"], 1 / 3, rtol=1e-6)


def test_a_report_of_weights_that_are_zero_or_in_half_precision_is_finite():
    params = {"kernel": jnp.zeros((400, 400), jnp.float16)}
    grads = jax.tree.map(jnp.ones_like, params)
    report = diagnostics.step_report(params, grads, grads)
    assert report["gradient_norm"] == 400  # Its square is too large for float16.
    assert report["share/kernel"] == 0


def test_what_belongs_to_other_parameters_is_named():
    params, others = {"a": jnp.ones((2, 3))}, {"b": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match="grads has nothing for parameter 'a'"):
        diagnostics.step_report(params, others, params)
    with pytest.raises(ValueError, match="updates has nothing for parameter 'a'"):
        diagnostics.angular_step(params, others)
    tx = lo.adam_lawn(0.1, 0, axes=0)
    updates, state = tx.update(params, tx.init(params), params)
    after = optax.apply_updates(params, updates)
    with pytest.raises(ValueError, match=r"norms of 'a' have shape \(3,\), and its spheres \(\)"):
        diagnostics.norm_drift(after, state)
    with pytest.raises(ValueError, match="norms has one of 'a', which is not constrained"):
        diagnostics.norm_drift(others, state)
    with pytest.raises(ValueError, match="state has norms of 'a', and params has 'b'"):
        lo.describe(others, state)


def test_norms_of_an_ensemble_under_vmap():
    tx = lo.adam_lawn(0.1, 0)
    params = {"kernel": jnp.ones((4, 2, 3))}
    update = jax.vmap(lambda w: tx.update(w, tx.init(w), w))
    _, state = update(params)
    assert diagnostics.captured_norms(state)["kernel"].shape == (4,)
