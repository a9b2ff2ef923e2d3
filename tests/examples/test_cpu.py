"""What is computed in another way on CPU is what it replaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.training import cpu


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_the_median_is_that_of_numpy_and_of_jax_to_the_bit(size):
    both = jax.jit(lambda x: (cpu.median(x), jnp.median(x)))
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=size).astype(np.float32).round(1)
        own, of_jax = both(x)
        np.testing.assert_array_equal(own, np.median(x))
        np.testing.assert_array_equal(own, of_jax)
    assert np.isnan(both(np.full(size, np.nan, np.float32))[0])


@pytest.mark.parametrize("n", [1, 2, 17])
def test_a_permutation_has_every_number_once(n):
    permutation = jax.jit(lambda key: cpu.random_permutation(key, n))
    for seed in range(5):
        order = permutation(jax.random.key(seed))
        np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_permutations_are_uniform_over_pairs_of_places():
    n, count = 20, 40_000
    keys = jax.random.split(jax.random.key(2), count)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: cpu.random_permutation(key, n)))(keys))
    # Neighbours by one digit of the cipher, and by the other.
    for one, other in [(0, 1), (0, 5), (7, 19)]:
        counts = np.zeros((n, n))
        np.add.at(counts, (orders[:, one], orders[:, other]), 1)
        k = n * (n - 1) - 1
        mean = count / (k + 1)
        chi_square = np.sum((counts[~np.eye(n, dtype=bool)] - mean) ** 2 / mean)
        assert chi_square <= k + 4 * np.sqrt(2 * k)


@pytest.mark.parametrize(
    ("size", "stride", "pixels"), [(3, 1, 6), (3, 2, 6), (3, 2, 7), (1, 2, 6), (7, 2, 8)]
)
def test_gradients_of_a_convolution_are_those_of_jax(size, stride, pixels):
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    x, kernel, padding = normal(2, pixels, pixels, 3), normal(size, size, 3, 4), size // 2
    own = lambda x, kernel: cpu.conv(x, kernel, stride, padding)
    of_jax = lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), 2 * [(padding, padding)], dimension_numbers=cpu.FORM
    )
    g = normal(*jax.eval_shape(own, x, kernel).shape)

    @jax.jit
    def both(x, kernel, g):
        (y, pull_back), (expected, pull_back_of_jax) = (
            jax.vjp(conv, x, kernel) for conv in (own, of_jax)
        )
        return (y, expected), list(zip(pull_back(g), pull_back_of_jax(g), strict=True))

    values, gradients = both(x, kernel, g)
    np.testing.assert_array_equal(*values)
    for gradient, of in gradients:
        np.testing.assert_allclose(gradient, of, rtol=1e-4, atol=1e-4)
