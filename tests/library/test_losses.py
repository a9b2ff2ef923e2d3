"""Losses: known values, known gradients, extreme logits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lawn_optax.losses import flooding, softmax_focal_loss

LOGITS = jnp.array([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]])
LABELS = jnp.array([0, 1])


def by_hand(logits, labels, gamma):
    p = np.exp(np.asarray(logits, np.float64))
    p /= p.sum(-1, keepdims=True)
    p = p[np.arange(len(labels)), labels]
    return -((1 - p) ** gamma) * np.log(p)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_by_hand(gamma):
    loss = softmax_focal_loss(LOGITS, LABELS, gamma=gamma)
    np.testing.assert_allclose(loss, by_hand(LOGITS, LABELS, gamma), rtol=1e-5)


def test_focal_loss_of_one_hot_labels_is_that_of_their_classes():
    hot = jax.nn.one_hot(LABELS, 3)
    np.testing.assert_allclose(
        softmax_focal_loss(LOGITS, hot), softmax_focal_loss(LOGITS, LABELS), rtol=1e-6
    )


def test_focal_loss_of_two_classes_is_optax_sigmoid_focal_loss():
    z = jnp.linspace(-6, 6, 13)
    two = jnp.stack([jnp.zeros_like(z), z], -1)
    np.testing.assert_allclose(
        softmax_focal_loss(two, jnp.ones(13, int), gamma=2.0),
        optax.sigmoid_focal_loss(z, jnp.ones(13), gamma=2.0),
        rtol=1e-4,
        atol=1e-7,
    )


def test_focal_loss_keeps_its_precision_where_examples_are_easy():
    # 1 - p = 1e-13 / (1 + 1e-13): lost in float32 if it were subtracted.
    logits = jnp.array([[0.0, jnp.log(1e-13)]])
    loss = softmax_focal_loss(logits, jnp.array([0]), gamma=0.5)
    assert 0 <= loss[0] < 1e-18
    slope = jax.grad(lambda z: softmax_focal_loss(z, jnp.array([0]), gamma=0.5).sum())(
        jnp.array([[0.0, -10.0]])
    )
    np.testing.assert_allclose(slope[0, 1], 1.5 * np.exp(-10.0 * 1.5), rtol=1e-2)


@pytest.mark.parametrize("gap", [12.0, 18.0, 24.0])
def test_focal_loss_of_confident_examples_keeps_its_precision(gap):
    loss = softmax_focal_loss(jnp.array([0.0, -gap]), jnp.array(0), gamma=2.0)
    np.testing.assert_allclose(loss, np.exp(-3 * gap), rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [1.0, 100.0, 1e4])
def test_focal_loss_has_finite_gradients(gamma, size):
    loss = lambda z: softmax_focal_loss(z, LABELS, gamma=gamma).sum()
    assert jnp.all(jnp.isfinite(jax.grad(loss)(size * LOGITS)))


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_loss_has_finite_gradients_of_the_largest_float16_logits(gamma):
    loss = lambda z: softmax_focal_loss(z, jnp.array(0), gamma=gamma)
    logits = jnp.array([-6e4, 0.0], jnp.float16)
    assert loss(logits).dtype == jnp.float16
    assert jnp.all(jnp.isfinite(jax.grad(loss)(logits)))


def test_focal_loss_refuses_labels_that_do_not_fit():
    with pytest.raises(ValueError, match=r"labels of shape \(3,\) .* do not fit logits"):
        softmax_focal_loss(LOGITS, jnp.zeros(3, int))
    with pytest.raises(ValueError, match=r"gamma=-1.0 must be finite and at least 0"):
        softmax_focal_loss(LOGITS, LABELS, gamma=-1.0)


def test_flooding_by_hand():
    assert flooding(jnp.float32(0.5), 0.2) == 0.5
    np.testing.assert_allclose(flooding(jnp.float32(0.1), 0.2), 0.3, rtol=1e-6)
    with pytest.raises(ValueError, match=r"level=-0.1 must be finite and at least 0"):
        flooding(jnp.float32(0.1), -0.1)
