"""Metrics, each on cases worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lawn_optax.metrics import expected_calibration_error, hit_ratio, logit_margin, ndcg


def test_margin_of_classes_by_hand():
    logits = jnp.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(logit_margin(logits, jnp.array([0, 1, 2])), [1.0, -2.0, 0.0])


@pytest.mark.parametrize("dtype", [bool, int, float])
def test_margin_of_one_logit_by_hand(dtype):
    margins = logit_margin(jnp.array([2.0, 2.0, -1.0]), jnp.array([1, 0, 0]).astype(dtype))
    np.testing.assert_allclose(margins, [2.0, -2.0, 1.0])


def test_margin_of_a_batch_of_sequences():
    assert logit_margin(jnp.ones((2, 3, 5)), jnp.zeros((2, 3), int)).shape == (2, 3)


@pytest.mark.parametrize("padding", [-1, -100, 3])
def test_a_label_that_is_no_class_has_no_margin(padding):
    logits = jnp.array([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    np.testing.assert_array_equal(logit_margin(logits, jnp.array([0, padding])), [1.0, np.nan])


def test_margin_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"logits of shape \(2, 3\) do not fit labels"):
        logit_margin(jnp.ones((2, 3)), jnp.zeros(3, int))
    with pytest.raises(ValueError, match=r"two classes or more"):
        logit_margin(jnp.ones((2, 1)), jnp.zeros(2, int))


def test_calibration_error_by_hand():
    # Bin (0.6, 0.7]: sure 0.65, half right. Bin (0.9, 1.0]: sure 0.95, all right.
    top = np.array([0.65, 0.65, 0.95, 0.95])
    probabilities = jnp.stack([top, 1 - top], -1)
    ece = expected_calibration_error(probabilities, jnp.array([0, 1, 0, 0]), bins=10)
    np.testing.assert_allclose(ece, 0.5 * 0.15 + 0.5 * 0.05, rtol=1e-5)


def test_calibration_errors_of_a_bin_cancel_within_it_only():
    probabilities = jnp.array([[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.75, 0.25]])
    assert expected_calibration_error(probabilities, jnp.array([0, 0, 0, 1])) == 0


def test_calibration_error_in_half_precision():
    probabilities = jnp.tile(jnp.array([0.75, 0.25]), (20_000, 1))
    labels = jnp.arange(20_000) % 2
    ece = expected_calibration_error(probabilities.astype(jnp.bfloat16), labels)
    np.testing.assert_allclose(ece, 0.25, rtol=1e-5)


def test_calibration_bins_are_closed_above():
    probabilities = jnp.array([[0.5, 0.5], [1.0, 0.0]])
    # With two bins, 0.5 belongs to the lower and 1.0 to the upper: no cancellation.
    ece = expected_calibration_error(probabilities, jnp.array([0, 1]), bins=2)
    np.testing.assert_allclose(ece, 0.5 * 0.5 + 0.5 * 1.0)


def test_calibration_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"bins=0 must be at least 1"):
        expected_calibration_error(jnp.ones((2, 2)) / 2, jnp.zeros(2, int), bins=0)
    with pytest.raises(ValueError, match=r"probabilities of shape \(2,\) do not fit"):
        expected_calibration_error(jnp.ones(2), jnp.zeros(2, int))


SCORES = jnp.array(
    [
        [9.0, 1.0, 2.0, 3.0],  # rank 0
        [2.5, 1.0, 2.0, 3.0],  # rank 1
        [2.0, 1.0, 2.0, 3.0],  # rank 2: a tie goes against it
        [0.0, 1.0, 2.0, 3.0],  # rank 3
    ]
)


@pytest.mark.parametrize(("k", "expected"), [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)])
def test_hit_ratio_by_hand(k, expected):
    assert jax.jit(hit_ratio, static_argnames="k")(SCORES, k=k) == expected


def test_ndcg_by_hand():
    expected = (1 + 1 / np.log2(3)) / 4
    np.testing.assert_allclose(ndcg(SCORES, k=2), expected, rtol=1e-6)


def test_a_constant_or_diverged_model_earns_nothing():
    assert hit_ratio(jnp.zeros((5, 100))) == 0
    assert hit_ratio(jnp.full((5, 100), jnp.nan)) == 0
    assert hit_ratio(jnp.array([[jnp.nan, 0.0]]), k=1) == 0
    assert hit_ratio(jnp.array([[0.0, jnp.nan]]), k=1) == 1


def test_hit_ratio_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"k=0 must be at least 1"):
        hit_ratio(SCORES, k=0)
    with pytest.raises(ValueError, match=r"scores of shape \(4,\) must be"):
        hit_ratio(SCORES[0])
