"""Schedules: end points, shape, edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lawn_optax.schedules import (
    warmup_cosine_decay,
    warmup_linear_decay,
    warmup_polynomial_decay,
)


def test_linear_schedule_by_hand():
    schedule = warmup_linear_decay(2.0, 4, 12, init_value=1.0, end_value=0.5)
    steps = np.arange(15)
    expected = np.interp(steps, [0, 4, 12], [1.0, 2.0, 0.5])
    np.testing.assert_allclose([schedule(t) for t in steps], expected, rtol=1e-6)


def test_polynomial_schedule_by_hand():
    schedule = warmup_polynomial_decay(3.0, 5, 25, power=2.0, warmup_power=1.5, end_value=1.0)
    np.testing.assert_allclose(schedule(2), 3 * (2 / 5) ** 1.5, rtol=1e-6)
    np.testing.assert_allclose(schedule(5), 3.0)
    np.testing.assert_allclose(schedule(15), 1 + 2 * 0.25, rtol=1e-6)
    np.testing.assert_allclose(schedule(100), 1.0)


def test_cosine_schedule_by_hand():
    schedule = warmup_cosine_decay(3.0, 5, 25, warmup_power=2.0, init_value=0.5, end_value=1.0)
    np.testing.assert_allclose(schedule(2), 0.5 + 2.5 * (2 / 5) ** 2, rtol=1e-6)
    np.testing.assert_allclose(schedule(5), 3.0)
    np.testing.assert_allclose(schedule(10), 1 + 2 * (1 + np.sqrt(0.5)) / 2, rtol=1e-6)
    np.testing.assert_allclose([schedule(25), schedule(100)], 1.0, rtol=1e-6)
    assert warmup_cosine_decay(1.0, 0, 10)(0) == 1.0


def test_without_warmup_it_starts_at_the_peak():
    assert warmup_linear_decay(1.0, 0, 10)(0) == 1.0


def test_all_warmup():
    schedule = warmup_linear_decay(1.0, 4, 4)
    np.testing.assert_allclose([schedule(t) for t in (2, 3, 4, 9)], [0.5, 0.75, 0.0, 0.0])


@pytest.mark.parametrize("schedule", [warmup_linear_decay, warmup_cosine_decay])
def test_peak_and_step_may_be_traced(schedule):
    rates = jax.jit(jax.vmap(lambda peak, t: schedule(peak, 2, 6)(t)))
    np.testing.assert_allclose(rates(jnp.array([1.0, 2.0]), jnp.array([1, 4])), [0.5, 1.0])


@pytest.mark.parametrize(("warmup", "total"), [(-1, 10), (11, 10), (0, -1)])
def test_refuses_steps_that_do_not_fit(warmup, total):
    with pytest.raises(ValueError, match=f"warmup_steps={warmup} and total_steps={total}"):
        warmup_linear_decay(1.0, warmup, total)


def test_refuses_powers_that_are_not_positive():
    with pytest.raises(ValueError, match=r"power=0.0 must be positive"):
        warmup_polynomial_decay(1.0, 2, 6, power=0.0)
