"""A switch that marks the norms to hold before it constrains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import lawn_optax as lo
from lawn_optax import diagnostics
from tests import reference
from tests.helpers import max_difference, norm, train

MARK, SWITCH, STEPS = 3, 9, 30
WEIGHTS = {
    "dense": np.random.default_rng(0).normal(size=(4, 3)),
    "embedding": np.random.default_rng(1).normal(size=(5, 2)),
    "bias": np.ones(3),
}


def pull(t, params):
    """Gradients that make the free weights longer, each time in another direction."""
    xp = np if isinstance(next(iter(params.values())), np.ndarray) else jnp
    return {name: xp.sin(2 * w + t) - 0.4 * w for name, w in params.items()}


def marks(*updates, switch=SWITCH):
    """A switch that marks exactly these updates, and constrains from `switch` on."""
    return lo.Switch(
        init=lambda: jnp.zeros([], bool),
        update=lambda count, state, _: (
            count >= switch,
            jnp.any(count == jnp.array(updates)),
        ),
        marked=lambda state: state,
    )


OPTIMIZERS = {
    "adam": (lambda s, **kw: lo.adam_lawn(0.05, s, **kw), lambda: reference.Adam(0.05)),
    "lamb": (lambda s, **kw: lo.lamb_lawn(0.05, s, **kw), lambda: reference.Lamb(0.05)),
    "sgd": (lambda s, **kw: lo.sgd_lawn(0.05, s, **kw), lambda: reference.Sgd(0.05)),
}


@pytest.mark.parametrize("axes", [None, 0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_algorithm_1_on_earlier_norms(x64, name, axes):
    make, rule = OPTIMIZERS[name]
    tx = make(lo.at_step(SWITCH, norms_of=MARK), axes=axes)
    ours, _ = train(tx, {k: jnp.asarray(w) for k, w in WEIGHTS.items()}, pull, STEPS)
    theirs = reference.train(
        WEIGHTS,
        pull,
        rule(),
        steps=STEPS,
        switch=SWITCH,
        norms_of=MARK,
        axes={} if axes is None else {"dense": (0,), "embedding": (0,)},
    )
    assert max_difference(ours, theirs) < 1e-10


PARAMS = {name: jnp.asarray(w, jnp.float32) for name, w in WEIGHTS.items()}


def run(tx, steps=STEPS):
    return train(tx, PARAMS, pull, steps)


def test_the_first_constrained_update_brings_the_weights_to_the_marked_norms():
    history, state = run(lo.adam_lawn(0.05, lo.at_step(SWITCH, norms_of=MARK)))
    marked = norm(history[MARK - 1]["dense"])  # what update number MARK finds
    assert abs(norm(history[SWITCH - 1]["dense"]) / marked - 1) > 0.02
    for params in history[SWITCH:]:
        np.testing.assert_allclose(norm(params["dense"]), marked, rtol=3e-6)
    np.testing.assert_allclose(state.norms["dense"], marked, rtol=1e-6)


def test_the_free_phase_is_not_changed_by_a_mark():
    marked, _ = run(lo.adam_lawn(0.05, lo.at_step(SWITCH, norms_of=MARK)), SWITCH)
    plain, _ = run(optax.adam(0.05, eps=1e-6), SWITCH)
    assert max_difference(marked, plain) < 1e-6


@pytest.mark.parametrize(("updates", "held"), [([2, 3, 7, 8], 7), ([2, 3], SWITCH), ([], SWITCH)])
def test_a_mark_that_is_taken_back_counts_no_more(updates, held):
    history, state = run(lo.adam_lawn(0.05, marks(*updates)))
    np.testing.assert_allclose(state.norms["dense"], norm(history[held - 1]["dense"]), rtol=1e-6)


def test_norms_are_zero_until_the_mark_and_after_it_is_taken_back():
    tx, taken = lo.adam_lawn(0.05, marks(2, 3)), []
    state, params = tx.init(PARAMS), PARAMS
    for t in range(6):
        updates, state = tx.update(pull(t, params), state, params)
        params = optax.apply_updates(params, updates)
        taken.append(float(state.norms["dense"]))
    assert [x > 0 for x in taken] == [False, False, True, True, False, False]
    assert taken[2] == taken[3]


def test_a_mark_at_the_switch_is_the_switch():
    for switch in (lo.at_step(SWITCH, norms_of=SWITCH), marks(SWITCH), marks(SWITCH + 3)):
        ours, _ = run(lo.adam_lawn(0.05, switch))
        theirs, _ = run(lo.adam_lawn(0.05, SWITCH))
        assert max_difference(ours, theirs) == 0


def test_epochs_and_switches_mark_too():
    n = 3
    same = [
        lo.at_step(SWITCH, norms_of=MARK),
        lo.at_epoch(SWITCH / n, n, norms_of=MARK / n),
        lo.at_epoch(SWITCH / n, n, norms_of=lo.at_epoch(MARK / n, n)),
        lo.at_step(SWITCH, norms_of=lo.at_step(2 * SWITCH, norms_of=MARK)),
    ]
    histories = [run(lo.adam_lawn(0.05, switch))[0] for switch in same]
    for history in histories[1:]:
        assert max_difference(history, histories[0]) == 0


def test_an_automatic_switch_may_mark_for_a_fixed_one():
    automatic = lo.at_median_margin(decay=0.0)
    tx = lo.adam_lawn(0.05, lo.at_step(SWITCH, norms_of=automatic))
    state, params, norms = tx.init(PARAMS), PARAMS, []
    margins, crossing = automatic.init(), None
    for t in range(STEPS):
        norms.append(norm(params["dense"]))
        says, margins = automatic.update(jnp.int32(t), margins, {"margin": jnp.float32(t)})
        crossing = t if says and crossing is None else crossing
        updates, state = tx.update(pull(t, params), state, params, margin=jnp.float32(t))
        params = optax.apply_updates(params, updates)
    assert 2 < crossing < SWITCH
    np.testing.assert_allclose(norm(params["dense"]), norms[crossing], rtol=3e-6)


@pytest.mark.parametrize("phase", [1, 5, 12])
def test_a_checkpoint_of_any_phase_goes_on_as_if_nothing_had_happened(phase):
    tx = lo.adam_lawn(0.05, lo.at_step(SWITCH, norms_of=MARK))
    history, _ = run(tx)
    params, state = PARAMS, tx.init(PARAMS)
    for t in range(STEPS):
        if t == phase:
            leaves = [np.asarray(x) for x in jax.tree.leaves(state)]
            template = jax.eval_shape(tx.init, params)
            state = jax.tree.unflatten(jax.tree.structure(template), leaves)
        updates, state = jax.jit(tx.update)(pull(t, params), state, params)
        params = optax.apply_updates(params, updates)
    assert max_difference([params], [history[-1]]) < 1e-6


def test_between_mark_and_switch_it_moves_to_another_mesh():
    tx = lo.adam_lawn(0.05, lo.at_step(SWITCH, norms_of=MARK))
    wide = {"w": jnp.asarray(np.random.default_rng(2).normal(size=(8, 4)), jnp.float32)}
    expected, _ = train(tx, wide, pull, STEPS)
    params, state = wide, tx.init(wide)
    meshes = [jax.make_mesh((4, 2), ("a", "b")), jax.make_mesh((2, 2), ("a", "b"))]
    for t in range(STEPS):
        if t in (0, 5):
            mesh = meshes[t > 0]
            place = lambda x, mesh=mesh: jax.device_put(
                np.asarray(x), NamedSharding(mesh, P("a", "b") if np.ndim(x) == 2 else P())
            )
            params, state = jax.tree.map(place, (params, state))
        updates, state = jax.jit(tx.update)(pull(t, params), state, params)
        params = optax.apply_updates(params, updates)
    assert max_difference([params], [expected[-1]]) < 1e-5


def test_a_slice_that_was_zero_at_the_mark_stays_free():
    params = {"w": jnp.array([[3.0, 0.0], [4.0, 0.0]])}
    tx = lo.lawn(optax.sgd(-1.0), lo.at_step(2, norms_of=0), axes=0)
    history, _ = train(tx, params, lambda t, p: {"w": jnp.ones((2, 2))}, 5)
    np.testing.assert_allclose(norm(history[-1]["w"], 0)[0], 5, rtol=3e-6)
    np.testing.assert_allclose(history[-1]["w"][:, 1], 5)


def test_one_trace_and_a_grid_of_marks_in_one_vmap():
    traces = []

    @jax.jit
    def final_norm(mark):
        traces.append(1)
        tx = lo.adam_lawn(0.05, lo.at_step(SWITCH, norms_of=mark))

        def body(carry, t):
            params, state = carry
            updates, state = tx.update(pull(t, params), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(body, (PARAMS, tx.init(PARAMS)), jnp.arange(STEPS))
        return jnp.linalg.norm(params["dense"])

    found = jax.vmap(final_norm)(jnp.array([0, MARK, SWITCH]))
    assert len(traces) == 1
    free, _ = run(optax.adam(0.05, eps=1e-6), SWITCH)
    expected = [norm(PARAMS["dense"]), *(norm(free[n - 1]["dense"]) for n in (MARK, SWITCH))]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_multi_steps_counts_marks_in_emitted_updates():
    tx = lo.adam_lawn(0.05, lo.at_step(SWITCH, norms_of=MARK))
    expected, _ = run(tx)
    multi = optax.MultiSteps(tx, 2)
    params, state = PARAMS, multi.init(PARAMS)
    update = jax.jit(multi.update)
    for t in range(2 * STEPS):
        updates, state = update(pull(t // 2, params), state, params)
        params = optax.apply_updates(params, updates)
    assert max_difference([params], [expected[-1]]) < 1e-5


def test_the_table_shows_marked_norms():
    tx = lo.adam_lawn(0.05, lo.at_step(SWITCH, norms_of=MARK))
    _, before = run(tx, MARK)
    _, marked = run(tx, MARK + 1)
    assert "not yet" in str(lo.describe(PARAMS, before))
    assert "not yet" not in str(lo.describe(PARAMS, marked))
    assert not diagnostics.is_constrained(marked)
    assert diagnostics.captured_norms(marked)["dense"] == marked.norms["dense"]


def test_the_state_is_of_one_type_throughout():
    tx = lo.adam_lawn(0.05, lo.at_step(SWITCH, norms_of=MARK))
    types = lambda state: jax.tree.map(lambda x: (x.shape, x.dtype), state)
    state = tx.init(PARAMS)
    for steps in (1, 5, 12):
        assert types(run(tx, steps)[1]) == types(state) == types(jax.eval_shape(lambda: state))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lo.at_step(3, norms_of=4), r"norms_of=4 updates comes after n, 3 updates"),
        (lambda: lo.at_step(3, norms_of=np.int64(4)), r"norms_of=4 updates comes after n, 3"),
        (lambda: lo.at_step(3, norms_of=jnp.int32(4)), r"norms_of=4 updates comes after n, 3"),
        (lambda: lo.at_epoch(1, 10, norms_of=1.5), r"norms_of=15 updates comes after epochs, 10"),
        (lambda: lo.at_epoch(1, 10, norms_of=-1), r"norms_of=-1.0 must be finite and at least 0"),
        (lambda: lo.at_step(3, norms_of=-1), r"norms_of=-1 must be at least 0"),
    ],
)
def test_a_mark_after_the_switch_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_mark_that_is_not_a_number_is_refused():
    with pytest.raises(TypeError, match=r"norms_of='x' must be"):
        lo.at_step(3, norms_of="x")
