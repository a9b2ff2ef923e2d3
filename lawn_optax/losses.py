"""Losses of the papers that Optax does not have; it has cross-entropy, smoothing and the rest."""

import jax
import jax.numpy as jnp

from lawn_optax._checks import check_not_negative


def softmax_focal_loss(logits: jax.Array, labels: jax.Array, *, gamma: float = 2.0) -> jax.Array:
    r"""Weight well-classified examples down in cross-entropy over classes: focal loss.

    .. math::
      -\sum_k y_k (1 - p_k)^\gamma \log p_k, \qquad p = \mathrm{softmax}(z)

    Args:
      logits: `(..., classes)`, unnormalised log-probabilities.
      labels: `(...)` integer classes, or `(..., classes)` probabilities.
      gamma: focusing exponent, at least 0; 0 is cross-entropy. The paper tries 0.5, 2 and 5.

    Returns:
      `(...)`, the loss of each example, in the dtype of the logits, computed in float32 at least.
      Its gradient is finite for logits up to 1e37.

    Raises:
      ValueError: if `gamma` is negative or not finite, or `labels` fits `logits` in neither way.

    Examples:
      >>> import jax.numpy as jnp, optax, lawn_optax
      >>> logits, labels = jnp.array([[2., 0.], [0., 1.]]), jnp.array([0, 0])
      >>> loss = lawn_optax.losses.softmax_focal_loss(logits, labels, gamma=0.)
      >>> bool(jnp.allclose(
      ...     loss, optax.softmax_cross_entropy_with_integer_labels(logits, labels)))
      True

    References:
      `Focal Loss for Dense Object Detection <https://arxiv.org/abs/1708.02002>`_, equation (4);
      section 4.5 of `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    gamma = check_not_negative("gamma", gamma, 2.0)
    logits = jnp.asarray(logits)
    targets = _probabilities(logits, labels)
    wide = jnp.promote_types(logits.dtype, jnp.float32)
    log_p, log_q = _log_softmax_and_complement(logits.astype(wide))
    losses = -jnp.sum(targets * jnp.exp(gamma * log_q) * log_p, axis=-1)
    return losses.astype(logits.dtype)


def flooding(loss: jax.Array, level: float) -> jax.Array:
    r"""Keep a mean loss from falling below a level: :math:`|L - b| + b`.

    Args:
      loss: scalar, the mean loss of a batch.
      level: the flood level `b`, at least 0, in the unit of the loss.

    Returns:
      Scalar; its gradient is that of the loss above the level, and its opposite below.

    Raises:
      ValueError: if `level` is negative or not finite.

    Examples:
      >>> import jax, lawn_optax
      >>> [float(jax.grad(lawn_optax.losses.flooding)(loss, 0.1)) for loss in (0.3, 0.05)]
      [1.0, -1.0]

    References:
      `Do We Need Zero Training Loss After Achieving Zero Training Error?
      <https://arxiv.org/abs/2002.08709>`_, equation (2).
    """
    level = check_not_negative("level", level, 0.1)
    return jnp.abs(loss - level) + level


def _log_softmax_and_complement(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return `log p` and `log(1 - p)`, without cancellation and with finite gradients."""
    log_p = jax.nn.log_softmax(logits, axis=-1)
    p = jnp.exp(log_p)
    # Only the largest p can come near 1, where log p and 1 - p cancel: sum the others there.
    largest = jax.nn.one_hot(jnp.argmax(p, axis=-1), p.shape[-1], dtype=bool)
    others = jnp.sum(jnp.where(largest, 0, p), axis=-1, keepdims=True)
    log_p = jnp.where(largest & (others < 0.5), jnp.log1p(-jnp.minimum(others, 0.5)), log_p)
    complement = jnp.where(largest, others, 1 - p)
    return log_p, jnp.log(jnp.maximum(complement, jnp.finfo(p.dtype).tiny))


def _probabilities(logits: jax.Array, labels: jax.Array) -> jax.Array:
    if jnp.shape(labels) == jnp.shape(logits):
        return labels
    if jnp.shape(labels) == jnp.shape(logits)[:-1] and jnp.issubdtype(
        jnp.result_type(labels), jnp.integer
    ):
        return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    raise ValueError(
        f"labels of shape {jnp.shape(labels)} and dtype {jnp.result_type(labels)} do not fit logits"
        f" of shape {jnp.shape(logits)}: give integers of shape {jnp.shape(logits)[:-1]}, or"
        " probabilities of the logits' shape."
    )
