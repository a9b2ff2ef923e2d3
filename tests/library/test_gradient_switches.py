"""`at_flattening` and `at_gradient_rise`: the norms of the moment when a course began to rise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import lawn_optax as lo
from tests.helpers import norm, train

# Shoots up, falls to a plateau, rises: the course of a gradient in neural collaborative filtering.
COURSE = np.interp(np.arange(400), [0, 10, 60, 120, 160, 400], [0.1, 8.0, 2.0, 1.0, 1.0, 4.0])
TWO_VALLEYS = np.interp(
    np.arange(1200), [0, 10, 60, 200, 300, 400, 600, 700, 1200], [1, 8, 2, 2, 2.4, 2.4, 1, 1, 5]
)
PARAMS = {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.ones(2)}
SWITCHES = {"gradient": lo.at_gradient_rise, "relative": lo.at_flattening}


def resting(steps):
    """Losses that fall to a half and rest there, as a recommender's do on its plateau."""
    return np.interp(np.arange(steps), [0, 20, 40], [2.0, 2.0, 1.0])


def follow(switch, norms, losses=None, slopes=None):
    """The steps at which a switch is marked, and the first at which it says yes."""
    losses = resting(len(norms)) if losses is None else losses
    slopes = np.zeros(len(norms)) if slopes is None else slopes

    def step(state, seen):
        t, norm, loss, slope = seen
        of_step = {"gradient_norm": norm, "value": loss, "loss_slope": slope}
        says, state = switch.update(t, state, of_step)
        return state, (switch.marked(state), says)

    seen = (jnp.arange(len(norms)), *map(jnp.float32, (norms, losses, slopes)))
    _, (marked, says) = jax.lax.scan(step, switch.init(), seen)
    return np.asarray(marked), int(np.argmax(says)) if np.any(says) else None


@pytest.fixture(params=SWITCHES)
def make(request):
    """Makes one of the switches."""
    return SWITCHES[request.param]


def test_it_marks_the_minimum_and_is_sure_later(make):
    marked, first = follow(make(), COURSE)
    assert 160 < first < 300
    begun = first - int(np.argmin(marked[:first][::-1]))  # after the last step without a mark
    assert 120 < begun < 200


def test_a_gradient_that_only_falls_never_switches(make):
    marked, first = follow(make(), np.geomspace(10, 1e-3, 500))
    assert first is None
    if make is lo.at_gradient_rise:
        assert not marked[5:].any()


def test_norms_of_a_loss_that_has_not_fallen_are_never_held():
    # As on data of which a network first learns the easy part, and needs larger norms for the rest.
    for level in (1.0, 0.75):
        losses = np.interp(np.arange(400), [0, 20, 400], [1.0, level, level])
        marked, first = follow(lo.at_flattening(), COURSE, losses)
        assert first is None
        assert not marked.any()


def test_a_rise_beyond_the_first_peak_counts(make):
    # As under label noise, where what is memorised last has the largest gradients.
    course = np.interp(np.arange(400), [0, 10, 60, 120, 400], [0.1, 3.0, 1.0, 1.0, 9.0])
    marked, first = follow(make(), course)
    assert 120 < first < 250
    assert marked[first - 1]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter(make, scale):
    assert follow(make(), scale * COURSE, scale * resting(400))[1] == follow(make(), COURSE)[1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_norms_that_are_not_finite_are_left_out(make, bad):
    spoilt = COURSE.copy()
    spoilt[::7] = bad
    assert abs(follow(make(), spoilt)[1] - follow(make(), COURSE)[1]) < 20


@pytest.mark.parametrize("first_norm", [0.0, np.nan])
def test_nothing_seen_is_no_valley(make, first_norm):
    course = np.geomspace(10, 1e-3, 300)
    course[:5] = first_norm
    assert follow(make(), course)[1] is None


def test_no_gradient_is_no_valley_even_if_the_loss_falls():
    assert follow(lo.at_flattening(), np.zeros(60), 0.9 ** np.arange(60))[1] is None


def gradients(t, params):
    """Gradients of the norms of `COURSE`, half along the weights, so that these grow."""
    direction = params["kernel"] / jnp.linalg.norm(params["kernel"])
    turned = jnp.flip(direction, 1) * jnp.array([[1.0, -1.0]])
    return {
        "kernel": -jnp.asarray(COURSE, jnp.float32)[t] * (0.8 * direction + 0.6 * turned),
        "bias": jnp.full(2, 1e3),  # a free leaf is not looked at
    }


def test_lawn_gives_it_the_norm_and_holds_those_of_the_minimum(make):
    tx = lo.lawn(optax.sgd(0.01), make())
    losses = jnp.float32(resting(400))
    seen = lambda s: {"value": losses[s.steps], "loss_slope": 0.0}
    with_loss = tx._replace(update=lambda g, s, p: tx.update(g, s, p, **seen(s)))
    history, state = train(with_loss, PARAMS, gradients, 400)
    _, first = follow(make(), COURSE)
    assert int(state.steps - state.constrained_steps) == first
    norms = [norm(p["kernel"]) for p in history]
    begun = int(np.argmin(np.abs(np.array(norms[:first]) - norms[-1])))
    assert 120 < begun < 200
    np.testing.assert_allclose(norms[first:], norms[-1], rtol=3e-6)
    assert norms[first - 1] > 1.01 * norms[-1]


def test_the_norm_is_that_of_the_whole_gradient_on_every_device():
    mesh = jax.make_mesh((4,), ("model",))
    params = {"kernel": jnp.arange(1.0, 9.0).reshape(8, 1)}
    tx = lo.lawn(optax.sgd(0.1), lo.at_gradient_rise())
    _, plain = tx.update(params, tx.init(params), params)
    placed = jax.device_put(params, NamedSharding(mesh, P("model")))
    _, sharded = jax.jit(tx.update)(placed, tx.init(placed), placed)
    np.testing.assert_allclose(plain.switch.average, sharded.switch.average, rtol=1e-6)
    np.testing.assert_allclose(plain.switch.average, 0.1 * norm(params["kernel"]), rtol=1e-6)


def observer():
    """A switch that keeps what `lawn` gives it."""
    names = ("gradient_norm", "loss_slope")
    init = lambda: dict.fromkeys(names, jnp.zeros([]))
    update = lambda count, state, seen: (False, {name: jnp.float32(seen[name]) for name in names})
    return lo.Switch(init, update, names)


@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize("spread", [None, P("model")])
@pytest.mark.parametrize(
    ("options", "slopes_of_blocks"),
    [({}, [3.0]), ({"axes": -1}, [3.0]), ({"stacked": "blocks"}, [1.0, 2.0])],
)
def test_the_slope_is_that_of_the_layer_along_which_the_loss_falls_most(
    options, slopes_of_blocks, spread, project
):
    w = jnp.stack([jnp.eye(4), 2 * jnp.eye(4)])
    params = {"blocks": w, "first": jnp.ones((4, 4)), "bias": jnp.ones(4)}
    place = lambda tree: tree
    if spread is not None:
        mesh = jax.make_mesh((4,), ("model",))
        specs = {"blocks": P(None, *spread), "first": spread, "bias": P()}
        place = lambda tree: {
            name: jax.device_put(x, NamedSharding(mesh, specs[name])) for name, x in tree.items()
        }
    params = place(params)
    blocks = -w / jnp.array([4.0, 8.0])[:, None, None]
    rest = {"first": jnp.full((4, 4), -0.15 / 16), "bias": jnp.full(4, -9.0)}
    tx = lo.lawn(optax.sgd(0.1), observer(), project=project, **options)
    for grads, expected in ((blocks, max(slopes_of_blocks)), (-blocks, 0.15)):
        grads = place({"blocks": grads, **rest})
        _, state = jax.jit(tx.update)(grads, tx.init(params), params)
        np.testing.assert_allclose(state.switch["loss_slope"], expected, rtol=1e-6)


def test_a_norm_from_before_clipping_tells_the_slope_from_before_it():
    tx = lo.lawn(optax.sgd(0.1), observer())
    grads = {"kernel": -PARAMS["kernel"] / 5, "bias": jnp.ones(2)}  # of length 1
    _, state = tx.update(grads, tx.init(PARAMS), PARAMS, gradient_norm=4.0)
    np.testing.assert_allclose(state.switch["loss_slope"], 20, rtol=1e-6)
    _, state = tx.update(grads, tx.init(PARAMS), PARAMS, gradient_norm=4.0, loss_slope=3.0)
    np.testing.assert_allclose(state.switch["loss_slope"], 3, rtol=1e-6)


def test_within_shard_map_the_norm_is_asked_for(make):
    tx = lo.lawn(optax.sgd(0.1), make(), axis_name="model")
    update = lambda w, **seen: tx.update(w, tx.init(w), w, value=jnp.float32(2), **seen)[1].switch
    w = jnp.ones((2, 2, 2))
    with pytest.raises(ValueError, match=r"gradient_norm=None: where axis_name is given, at_"):
        jax.vmap(update, axis_name="model")(w)
    given = jax.vmap(lambda w: update(w, gradient_norm=jnp.float32(3)), axis_name="model")(w)
    first_weight = 1 if make is lo.at_flattening else 0.1
    np.testing.assert_allclose(given[0], 3 * first_weight, rtol=1e-6)


def test_a_rise_from_a_lower_minimum_is_marked_anew(make):
    marked, first = follow(make(), TWO_VALLEYS)
    assert marked[400]
    assert marked[first]
    last_without = first - int(np.argmin(marked[:first][::-1]))
    assert 700 < last_without < first


def test_by_hand_it_holds_the_norms_that_it_would_hold_itself(make):
    # With a mark that is taken back, and one that stays.
    course = TWO_VALLEYS
    marked, first = follow(make(), course)
    by_hand, _ = follow(lo.at_step(1100, norms_of=make()), course)
    np.testing.assert_array_equal(by_hand[: first + 1], marked[: first + 1])
    assert by_hand[first:].all()


def test_with_a_ratio_of_one_the_minimum_itself_is_marked(make):
    marked, first = follow(make(mark_ratio=1.0), COURSE)
    begun = first - int(np.argmin(marked[:first][::-1]))
    assert 120 < begun < 190


@pytest.mark.parametrize("mark_ratio", [0.9, 1.3, float("nan")])
def test_a_ratio_for_the_mark_out_of_range_is_refused(make, mark_ratio):
    with pytest.raises(ValueError, match=rf"mark_ratio={mark_ratio} must lie between 1 and ratio"):
        make(mark_ratio=mark_ratio)


@pytest.mark.parametrize("ratio", [1.0, float("nan"), float("inf")])
def test_a_ratio_out_of_range_is_refused(make, ratio):
    with pytest.raises(ValueError, match=rf"ratio={ratio} must be above 1 and finite"):
        make(ratio)


# What the loss tells beyond the gradient.


def reference(norms, losses, slopes, ratio=1.25, mark_ratio=1.1):
    """`at_flattening` in float64, step by step: the update marked, and that first constrained."""
    intercept = average_norm = average_loss = highest = peak = low = mean = 0.0
    valley = followed = falling = risen = of_valley = False
    mark, at = None, None
    for t, (norm_now, loss, slope) in enumerate(zip(norms, losses, slopes, strict=True)):
        weight = max(1 / (t + 1), min(0.1, 6 / (t + 6)))
        average_norm += weight * (norm_now - average_norm)
        average_loss += weight * (loss - average_loss)
        intercept += weight * (loss + min(max(slope, 0), loss) - intercept)
        x, highest = average_norm / average_loss, max(highest, average_loss)
        peak, was_falling = max(peak, x), falling
        valley = valley or ratio * x < peak
        if not followed or x < low:
            low, falling, risen = x, True, False
        elif x > low:
            falling = falling and x < mark_ratio * low
            risen = risen or x >= ratio * low
        followed = followed or valley
        if at is not None:
            mean += (loss - mean) / (t - at)
        if at is None and average_loss < 0.7 * highest and intercept < 0.8 * highest:
            mark = at = t
            low, followed, falling, risen, of_valley = x, True, False, False, False
            mean = average_loss
        elif mark is not None and was_falling and not falling and average_loss >= 0.9 * mean:
            mark = None
        elif mark is None and at is not None and followed and not falling:
            mark = at = t
            of_valley, mean = valley, average_loss
        if mark is not None and risen and (of_valley or average_loss < 0.9 * mean):
            return mark, t
    return mark, None


@pytest.mark.parametrize("seed", range(20))
def test_against_a_reference_on_random_courses(seed):
    rng = np.random.default_rng(seed)
    walk = lambda scale: np.cumsum(scale * rng.normal(size=30))
    smooth = lambda x: np.exp(np.interp(np.arange(500), np.linspace(0, 499, 30), x))
    norms, losses = smooth(walk(0.3)), smooth(walk(0.2) - np.linspace(0, 3, 30) * rng.random())
    slopes = losses * walk(0.2)[np.arange(500) // 17]
    marked, first = follow(lo.at_flattening(), norms, losses, slopes)
    mark, at = reference(norms, losses, slopes)
    assert first == at
    end = len(marked) if first is None else first + 1
    without = np.flatnonzero(~marked[:end])
    assert (without[-1] + 1 if len(without) else 0) == (end if mark is None else mark)


def test_a_gradient_that_falls_more_slowly_than_the_loss_flattens():
    steps = np.arange(400)
    norms = np.interp(steps, [0, 60, 120, 400], [8.0, 1.0, 1.0, 0.5])  # only falls
    losses = np.interp(steps, [0, 120, 400], [2.0, 1.9, 0.1])
    assert follow(lo.at_gradient_rise(), norms)[1] is None
    marked, first = follow(lo.at_flattening(), norms, losses)
    assert 150 < np.argmax(marked) < 300 < first < 400
    assert marked[first]


def test_without_a_valley_the_norms_are_those_of_a_loss_that_has_fallen():
    # As a bag of words does, whose examples have little in common.
    losses = np.interp(np.arange(900), [0, 100, 400, 900], [3.0, 3.0, 0.1, 0.05])
    relative = np.geomspace(0.1, 100, 900)  # only rises
    marked, first = follow(lo.at_flattening(), relative * losses, losses)
    fallen = int(np.argmax(losses < 0.7 * 3))
    begun = int(np.argmax(marked))
    assert fallen < begun < fallen + 40
    assert marked[begun:].all()
    assert losses[first] < 0.9 * losses[begun + 1 : first + 1].mean()  # it has to go on
    assert follow(lo.at_flattening(), (relative * losses)[:first], losses[:first])[1] is None
    high = np.maximum(losses, 2.2)
    assert follow(lo.at_flattening(), relative * high, high)[1] is None


def test_norms_wait_while_larger_ones_alone_would_lower_the_loss():
    # Margins that all grow alike, as the softplus of one margin does.
    margins = np.linspace(0, 6, 600)
    losses, slopes = np.logaddexp(0, -margins), margins / (1 + np.exp(margins))
    relative = np.geomspace(0.1, 100, 600)
    alone, _ = follow(lo.at_flattening(), relative * losses, losses)
    marked, first = follow(lo.at_flattening(), relative * losses, losses, slopes)
    entropies = losses + slopes
    assert np.argmax(alone) < np.argmax(entropies < 0.8 * np.log(2)) <= np.argmax(marked) < first
    assert np.argmax(marked) < np.argmax(entropies < 0.65 * np.log(2))


def plateau(then):
    """Course and losses of a recommender: to a plateau in 40 steps, on it to step 300, then on."""
    steps = np.arange(1000)
    relative = np.interp(steps, [0, 40, 50, 80, 300, 1000], [0.1, 1.0, 1.0, 0.1, 0.1, 1.0])
    return relative, np.interp(steps, [0, 10, 40, 300, 1000], [0.69, 0.69, 0.17, 0.17, then])


def test_a_descent_onto_a_plateau_is_not_learning():
    relative, losses = plateau(0.05)
    marked, first = follow(lo.at_flattening(), relative * losses, losses)
    assert marked[60]  # the loss has fallen to a quarter
    last_without = first - int(np.argmin(marked[:first][::-1]))
    assert 300 < last_without < first < 450


@pytest.mark.parametrize(
    "losses",
    [[4.0, 1, 1], [1.5, 1, 1], 2.3 + 8 * np.exp(-np.arange(30) / 3)],
    ids=["one", "slightly", "collapse"],
)
def test_first_losses_above_the_others_are_not_learning(losses):
    course = np.full(3000, float(losses[-1]))
    course[: len(losses)] = losses
    assert follow(lo.at_flattening(), np.linspace(1, 1.6, 3000), course)[1] is None


def test_a_gradient_of_zero_is_no_minimum():
    losses = 0.9 ** np.arange(60)
    norms = np.where(np.arange(60) < 30, 0, 1e-6 * losses)
    assert follow(lo.at_flattening(), norms, losses)[1] is None


def test_a_mark_stays_while_the_loss_goes_on_falling():
    steps = np.arange(800)
    losses = 3 * np.exp(-steps / 200)
    relative = np.interp(steps, [0, 100, 500, 800], [2.0, 4.0, 0.5, 4.0])
    marked, first = follow(lo.at_flattening(), relative * losses, losses)
    assert marked[np.argmax(marked) :].all()
    assert np.argmax(marked) < 120 < 500 < first


def test_a_loss_that_falls_as_its_gradient_does_not_flatten():
    # As a regression does: the gradient of a mean square falls with its root.
    losses = np.geomspace(2.0, 0.5, 400)
    norms = losses * np.interp(np.arange(400), [0, 60, 400], [4.0, 1.0, 1.1])
    assert follow(lo.at_flattening(), norms, losses)[1] is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_slopes_that_are_not_finite_are_left_out(bad):
    slopes = np.zeros(400)
    slopes[::7] = bad
    spoilt = follow(lo.at_flattening(), COURSE, slopes=slopes)[1]
    assert abs(spoilt - follow(lo.at_flattening(), COURSE)[1]) < 20


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_losses_that_have_no_logarithm_are_left_out(bad):
    losses = resting(400)
    losses[::7] = bad
    spoilt = follow(lo.at_flattening(), COURSE, losses)[1]
    assert abs(spoilt - follow(lo.at_flattening(), COURSE)[1]) < 20
    assert follow(lo.at_flattening(), COURSE, np.full(400, bad))[1] is None


def test_without_a_loss_it_says_what_to_do():
    tx = lo.adam_lawn(0.1, lo.at_flattening())
    with pytest.raises(ValueError, match=r"value=None: at_flattening needs the minibatch's loss"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("missed", [1, 5])
def test_first_losses_that_are_left_out_delay_nothing(missed):
    losses, none = np.interp(np.arange(900), [0, 100, 400], [3.0, 3.0, 0.1]), np.full(900, np.nan)
    relative = np.geomspace(0.1, 100, 900)
    first = np.arange(900) < missed
    _, seen = follow(lo.at_flattening(), relative * losses, losses)
    _, later = follow(lo.at_flattening(), relative * losses, np.where(first, none, losses))
    assert abs(later - seen) < 10


def test_a_loss_with_what_came_beside_it_is_told_where_it_is():
    tx = lo.adam_lawn(0.1)
    update = lambda loss: tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=loss)
    for call in (update, jax.jit(update)):
        with pytest.raises(ValueError, match=r"value is a tuple and must be one number.*has_aux"):
            call((jnp.float32(1), jnp.ones(3)))


@pytest.mark.parametrize(
    "seen", [{"value": jnp.ones(2)}, {"value": 1.0, "gradient_norm": jnp.ones(1)}]
)
def test_what_is_not_a_scalar_is_refused_by_name(seen):
    tx = lo.lawn(optax.sgd(0.1), lo.at_flattening())
    with pytest.raises(ValueError, match=r"has shape \([12],\): give one number, such as the mean"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, **seen)


@pytest.mark.parametrize("loss", ["high", 1j])
def test_what_is_not_real_is_refused_by_name(loss):
    tx = lo.lawn(optax.sgd(0.1), lo.at_flattening())
    with pytest.raises(TypeError, match=f"value={loss!r} must be a real number"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=loss)


def test_the_loss_reaches_the_inner_optimizer_too():
    inner = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    tx = lo.lawn(inner, lo.at_flattening())
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.float32(2))
    np.testing.assert_allclose(state.switch.loss, 2, rtol=1e-6)
    np.testing.assert_allclose(state.inner[1].best_value, 2, rtol=1e-6)
