"""Runs of the examples that are stopped like a process, and whether two are the same."""

import jax
import jax.numpy as jnp
import numpy as np

from examples import training


class StoppedError(Exception):
    """What a killed process is to the files it leaves."""


def stop_after(monkeypatch, epochs):
    """Makes training stop in the middle of the epoch that follows."""
    train_epoch, begun = training.train_epoch, []

    def stopping(*args):
        begun.append(None)
        if len(begun) > epochs:
            raise StoppedError
        return train_epoch(*args)

    monkeypatch.setattr(training.loop, "train_epoch", stopping)


def assert_same(first, second):
    """The same bits."""
    assert first.curve.keys() == second.curve.keys()
    for name, values in first.curve.items():
        assert values.dtype == second.curve[name].dtype
        np.testing.assert_array_equal(values, second.curve[name], err_msg=name)
    bits = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    for x, y in zip(*map(jax.tree.leaves, (first.state, second.state)), strict=True):
        np.testing.assert_array_equal(bits(x), bits(y))
