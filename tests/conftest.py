"""How tests compile, eight virtual CPU devices, and the trees that many tests share.

Compiling is most of what tests take, so programs are compiled without LLVM's optimizations, which
change no operation and no fusion of XLA's, and are shared between workers and runs by JAX's cache,
whose keys are the programs themselves: even of a single operation it takes 3 ms in place of 50.
Environment variables overrule both:
`JAX_DISABLE_MOST_OPTIMIZATIONS=0` compiles as users do, and `.ci/run` so tests the library.
"""

import os
import tempfile
import time
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)
# In the environment, so that processes that tests start have them, too.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", f"{tempfile.gettempdir()}/lawn_optax-tests-{os.getuid()}"
)

import hypothesis
import jax
import numpy as np
import pytest

# `--hypothesis-profile=thorough`, as .ci/run has it, tries twice as many examples.
hypothesis.settings.register_profile("quick", max_examples=25)
hypothesis.settings.register_profile("thorough", max_examples=50)
hypothesis.settings.load_profile("quick")

SHAPES = {
    "dense": (6, 4),
    "conv": (3, 3, 2, 4),
    "embedding": (7, 3),
    "bias": (4,),
    "scale": (4,),
}
CONSTRAINED = ("conv", "dense", "embedding")
DAYS_KEPT = 7


def pytest_configure(config):
    """Makes the folder of compilations, for this user alone, and drops those that are old."""
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    ours = folder.name.startswith("lawn_optax-tests-")
    if not ours or hasattr(config, "workerinput"):  # The first process sees to it.
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > 24 * 3600 * DAYS_KEPT:
            path.unlink()


@pytest.fixture(scope="module")
def compiled_as_for_users():
    """Full optimization and nothing from the caches, for tests that read compiled programs."""
    before = {
        "jax_disable_most_optimizations": jax.config.read("jax_disable_most_optimizations"),
        "jax_persistent_cache_min_compile_time_secs": (
            jax.config.jax_persistent_cache_min_compile_time_secs
        ),
    }
    for name, value in zip(before, (False, float("inf")), strict=True):
        jax.config.update(name, value)
    jax.clear_caches()  # Their keys do not say how a program was compiled.
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    jax.clear_caches()


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
