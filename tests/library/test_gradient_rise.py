"""`at_gradient_rise`: the norms of the moment when the gradient was smallest."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from tests.helpers import norm, train

# Shoots up, falls to a plateau, rises: the course of a gradient in neural collaborative filtering.
COURSE = np.interp(np.arange(400), [0, 10, 60, 120, 160, 400], [0.1, 8.0, 2.0, 1.0, 1.0, 4.0])
PARAMS = {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.ones(2)}


def follow(switch, norms):
    """The steps at which a switch is marked, and the first at which it says yes."""
    state, marked, first = switch.init(), [], None
    for t, x in enumerate(norms):
        says, state = switch.update(jnp.int32(t), state, {"gradient_norm": jnp.float32(x)})
        marked.append(bool(switch.marked(state)))
        first = t if says and first is None else first
    return np.array(marked), first


def test_it_marks_the_minimum_and_is_sure_later():
    marked, first = follow(lo.at_gradient_rise(), COURSE)
    assert 160 < first < 300
    begun = first - int(np.argmin(marked[:first][::-1]))  # after the last step without a mark
    assert 120 < begun < 200


def test_a_gradient_that_only_falls_never_switches():
    marked, first = follow(lo.at_gradient_rise(), np.geomspace(10, 1e-3, 500))
    assert first is None
    assert not marked[5:].any()


def test_a_rise_beyond_the_first_peak_counts():
    # As under label noise, where what is memorised last has the largest gradients.
    course = np.interp(np.arange(400), [0, 10, 60, 120, 400], [0.1, 3.0, 1.0, 1.0, 9.0])
    marked, first = follow(lo.at_gradient_rise(), course)
    assert 120 < first < 250
    assert marked[first - 1]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter(scale):
    assert (
        follow(lo.at_gradient_rise(), scale * COURSE)[1] == follow(lo.at_gradient_rise(), COURSE)[1]
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_norms_that_are_not_finite_are_left_out(bad):
    spoilt = COURSE.copy()
    spoilt[5::7] = bad
    assert (
        abs(follow(lo.at_gradient_rise(), spoilt)[1] - follow(lo.at_gradient_rise(), COURSE)[1])
        < 20
    )


def gradients(t, params):
    """Gradients of the norms of `COURSE`, half along the weights, so that these grow."""
    direction = params["kernel"] / jnp.linalg.norm(params["kernel"])
    turned = jnp.flip(direction, 1) * jnp.array([[1.0, -1.0]])
    return {
        "kernel": -jnp.asarray(COURSE, jnp.float32)[t] * (0.8 * direction + 0.6 * turned),
        "bias": jnp.full(2, 1e3),  # a free leaf is not looked at
    }


def test_lawn_gives_it_the_norm_and_holds_those_of_the_minimum():
    tx = lo.lawn(optax.sgd(0.01), lo.at_gradient_rise())
    history, state = train(tx, PARAMS, gradients, 400)
    _, first = follow(lo.at_gradient_rise(), COURSE)
    assert int(state.steps - state.constrained_steps) == first
    norms = [norm(p["kernel"]) for p in history]
    begun = int(np.argmin(np.abs(np.array(norms[:first]) - norms[-1])))
    assert 120 < begun < 200
    np.testing.assert_allclose(norms[first:], norms[-1], rtol=3e-6)
    assert norms[first - 1] > 1.01 * norms[-1]


def test_the_norm_is_that_of_the_whole_gradient_on_every_device():
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = jax.make_mesh((4,), ("model",))
    params = {"kernel": jnp.arange(1.0, 9.0).reshape(8, 1)}
    tx = lo.lawn(optax.sgd(0.1), lo.at_gradient_rise())
    _, plain = tx.update(params, tx.init(params), params)
    placed = jax.device_put(params, NamedSharding(mesh, P("model")))
    _, sharded = jax.jit(tx.update)(placed, tx.init(placed), placed)
    np.testing.assert_allclose(plain.switch.average, sharded.switch.average, rtol=1e-6)
    np.testing.assert_allclose(plain.switch.average, 0.1 * norm(params["kernel"]), rtol=1e-6)


def test_within_shard_map_the_norm_is_asked_for():
    tx = lo.lawn(optax.sgd(0.1), lo.at_gradient_rise(), axis_name="model")
    with pytest.raises(ValueError, match=r"gradient_norm=None: where axis_name is given"):
        jax.vmap(lambda w: tx.update(w, tx.init(w), w), axis_name="model")(jnp.ones((2, 2, 2)))
    given = lambda w: tx.update(w, tx.init(w), w, gradient_norm=jnp.float32(3))[1].switch.average
    np.testing.assert_allclose(
        jax.vmap(given, axis_name="model")(jnp.ones((2, 2, 2))), 0.3, rtol=1e-6
    )


def test_a_lower_minimum_takes_the_mark_back():
    steps = [0, 10, 60, 200, 300, 400, 600, 700, 1200]
    course = np.interp(np.arange(1200), steps, [1, 8, 2, 2, 2.4, 2.4, 1.0, 1.0, 5])
    marked, first = follow(lo.at_gradient_rise(), course)
    assert marked[400]
    assert not marked[650]
    assert marked[first]
    assert first > 700


@pytest.mark.parametrize("mark_ratio", [0.9, 1.3, float("nan")])
def test_a_ratio_for_the_mark_out_of_range_is_refused(mark_ratio):
    with pytest.raises(ValueError, match=rf"mark_ratio={mark_ratio} must lie between 1 and ratio"):
        lo.at_gradient_rise(mark_ratio=mark_ratio)


@pytest.mark.parametrize("ratio", [1.0, float("nan"), float("inf")])
def test_a_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match=rf"ratio={ratio} must be above 1 and finite"):
        lo.at_gradient_rise(ratio)
