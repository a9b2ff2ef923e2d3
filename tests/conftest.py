"""Eight virtual CPU devices for the sharding tests, and the trees that many tests share."""

import os

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

SHAPES = {
    "dense": (6, 4),
    "conv": (3, 3, 2, 4),
    "embedding": (7, 3),
    "bias": (4,),
    "scale": (4,),
}
CONSTRAINED = ("conv", "dense", "embedding")


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    """One leaf of each kind a network has, in float64."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


@pytest.fixture
def gradient(weights):
    """A noisy quadratic: `gradient(t, params)` pulls towards a point off every sphere."""
    rng = np.random.default_rng(1)
    target = {name: 2 * rng.normal(size=w.shape) for name, w in sorted(weights.items())}

    def gradient(t, params):
        rng = np.random.default_rng(100 + t)
        return {
            name: np.asarray(params[name])
            - target[name]
            + 0.1 * rng.normal(size=target[name].shape)
            for name in sorted(params)
        }

    return gradient
