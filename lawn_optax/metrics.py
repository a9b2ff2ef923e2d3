"""Metrics: margins, calibration, ranking.

Each is a pure function of arrays, for use inside `jit` and `vmap`.
"""

import jax
import jax.numpy as jnp


def logit_margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
    r"""Measure how far each example is classified correctly, in logits.

    With classes, :math:`z_y - \max_{k \ne y} z_k`; with one logit, :math:`z` for a positive
    example and :math:`-z` for a negative one. The loss is flat where it exceeds about 2.5. A label
    that is no class, such as the -1 or -100 of padding, has the margin NaN, which switches and
    `diagnostics.flat_zone_share` leave out.

    Args:
      logits: `(..., classes)` with at least two classes, or `(...)`.
      labels: `(...)`: integer classes for the first, 0 or 1 (any dtype, bool too) for the second.

    Returns:
      `(...)`, the margins; positive where the example is classified correctly.

    Raises:
      ValueError: if the shapes fit in neither way.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> print(lawn_optax.metrics.logit_margin(jnp.array([[3., 1., 2.]]), jnp.array([0])))
      [1.]
      >>> print(lawn_optax.metrics.logit_margin(jnp.array([3., 3.]), jnp.array([1, 0])))
      [ 3. -3.]

    References:
      Section 2 and appendix A of
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if logits.shape == labels.shape:
        return jnp.where(labels > 0, logits, -logits)
    if logits.shape[:-1] != labels.shape or logits.shape[-1] < 2:
        raise ValueError(
            f"logits of shape {logits.shape} do not fit labels of shape {labels.shape}: give"
            " (..., classes) with two classes or more and (...), or twice the same shape."
        )
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    of_own = jnp.sum(jnp.where(own, logits, 0), axis=-1)
    of_others = jnp.max(jnp.where(own, -jnp.inf, logits), axis=-1)
    return jnp.where(jnp.any(own, axis=-1), of_own - of_others, jnp.nan)


def expected_calibration_error(
    probabilities: jax.Array, labels: jax.Array, *, bins: int = 15
) -> jax.Array:
    r"""Return the expected calibration error: how far confidence is from accuracy.

    .. math::
      \sum_b \frac{|B_b|}{n} \left| \mathrm{acc}(B_b) - \mathrm{conf}(B_b) \right|

    Args:
      probabilities: `(n, classes)`, each row summing to 1 (softmax of the logits, not the logits).
      labels: `(n,)`, integer classes.
      bins: number of bins of equal width, `(0, 1/bins], ...`, by the largest probability.

    Returns:
      A scalar between 0 and 1.

    Raises:
      ValueError: if `bins` is below 1 or the shapes do not fit.

    Examples:
      Always 80% sure and 100% right:

      >>> import jax.numpy as jnp, lawn_optax
      >>> probabilities = jnp.tile(jnp.array([.8, .2]), (10, 1))
      >>> ece = lawn_optax.metrics.expected_calibration_error(
      ...     probabilities, jnp.zeros(10, int))
      >>> print(f"{ece:.2f}")
      0.20

    References:
      `On Calibration of Modern Neural Networks <https://arxiv.org/abs/1706.04599>`_, equation (5);
      section 4.6 of `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    probabilities, labels = jnp.asarray(probabilities), jnp.asarray(labels)
    # Sums over many examples lose all accuracy in half precision.
    probabilities = probabilities.astype(jnp.promote_types(probabilities.dtype, jnp.float32))
    if bins < 1:
        raise ValueError(f"bins={bins} must be at least 1; 15 is usual.")
    if probabilities.ndim != 2 or probabilities.shape[:1] != labels.shape:
        raise ValueError(
            f"probabilities of shape {probabilities.shape} do not fit labels of shape"
            f" {labels.shape}: give (n, classes) and (n,)."
        )
    confidence = jnp.max(probabilities, axis=-1)
    correct = jnp.argmax(probabilities, axis=-1) == labels
    of_bin = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    gap = jax.ops.segment_sum(correct - confidence, of_bin, num_segments=bins)
    return jnp.sum(jnp.abs(gap)) / labels.shape[0]


def hit_ratio(scores: jax.Array, *, k: int = 10) -> jax.Array:
    """Return the share of users whose held-out item is among the `k` best: HR@k.

    Args:
      scores: `(users, candidates)`, the held-out item's score first. A candidate that ties with it
        ranks before it, so that constant scores earn nothing; NaN ranks last.
      k: length of the recommended list, at least 1.

    Returns:
      A scalar between 0 and 1.

    Raises:
      ValueError: if `k` is below 1 or `scores` is not two-dimensional.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> scores = jnp.array([[3., 1., 2.], [1., 2., 3.], [0., 0., 0.]])
      >>> print(lawn_optax.metrics.hit_ratio(scores, k=2))
      0.33333334

    References:
      `Neural Collaborative Filtering <https://arxiv.org/abs/1708.05031>`_, section 4.1;
      appendix B.2 of `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    return jnp.mean(_rank(scores, k) < k)


def ndcg(scores: jax.Array, *, k: int = 10) -> jax.Array:
    r"""Return the normalised discounted cumulative gain of the held-out item: NDCG@k.

    Each user earns :math:`1 / \log_2(2 + \mathrm{rank})`, ranks counted from 0, where the item is
    among the `k` best, and nothing elsewhere.

    Args:
      scores: `(users, candidates)`, as for `hit_ratio`.
      k: length of the recommended list, at least 1.

    Returns:
      A scalar between 0 and 1.

    Raises:
      ValueError: as `hit_ratio`.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> print(lawn_optax.metrics.ndcg(jnp.array([[3., 1., 2.]])))
      1.0

    References:
      `Neural Collaborative Filtering <https://arxiv.org/abs/1708.05031>`_, section 4.1.
    """
    rank = _rank(scores, k)
    return jnp.mean(jnp.where(rank < k, 1 / jnp.log2(2.0 + rank), 0.0))


def _rank(scores: jax.Array, k: int) -> jax.Array:
    """Count the candidates that rank before the first, for each user."""
    scores = jnp.asarray(scores)
    if k < 1:
        raise ValueError(f"k={k} must be at least 1; 10 is usual.")
    if scores.ndim != 2:
        raise ValueError(
            f"scores of shape {scores.shape} must be (users, candidates), held-out item first."
        )
    own, others = scores[:, :1], scores[:, 1:]
    # "Not below" rather than "above": ties, and an own score that is NaN, count against the item.
    ahead = ~(others < own) & ~(jnp.isnan(others) & ~jnp.isnan(own))
    return jnp.sum(ahead, axis=-1)
