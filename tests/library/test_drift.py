"""A hundred thousand constrained steps: the norms stay where they were captured."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from tests.helpers import norm

STEPS, EVERY = 100_000, 1000


@pytest.mark.parametrize(
    ("dtype", "rate"), [(jnp.float32, 1e-3), (jnp.float32, 0.1), (jnp.bfloat16, 0.02)]
)
def test_norms_do_not_drift(dtype, rate):
    w = jax.random.normal(jax.random.key(0), (16, 8)).astype(dtype)
    tx = lo.adam_lawn(rate, 0)

    def step(carry, key):
        w, state = carry
        grads = (jax.random.normal(key, w.shape) + jnp.sin(w.astype(jnp.float32))).astype(dtype)
        updates, state = tx.update(grads, state, w)
        return (optax.apply_updates(w, updates), state), None

    @jax.jit
    def block(carry, key):
        return jax.lax.scan(step, carry, jax.random.split(key, EVERY))[0]

    carry, errors = (w, tx.init(w)), []
    for i in range(STEPS // EVERY):
        carry = block(carry, jax.random.key(i))
        errors.append(float(norm(carry[0]) / norm(w) - 1))
    assert np.linalg.norm(np.float32(carry[0] - w)) > 0.1 * norm(w)  # it did move
    errors = np.array(errors)
    if dtype == jnp.float32:
        assert np.max(np.abs(errors)) < 1e-6
    else:
        # Rounding to bfloat16 moves a norm by up to 1e-3 at once; it must not add up.
        assert np.max(np.abs(errors)) < 2e-3
        thirds = np.array_split(errors, 3)
        spread = np.std(errors) / np.sqrt(len(thirds[0]))
        assert abs(thirds[-1].mean() - thirds[0].mean()) < 6 * spread
