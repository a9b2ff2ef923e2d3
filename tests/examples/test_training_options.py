"""Options that every example has: clipping, flooding."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from examples import training
from examples.tasks import digits
from examples.training.options import Options, make_optimizer

OPTIONS = {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 2, "seeds": 2, "warmup_epochs": 0.0}


@pytest.fixture(scope="module")
def task():
    return digits.load(noise=0.0, batch_size=250)


def test_the_gradient_as_a_whole_is_clipped():
    options = Options(**OPTIONS, clip_norm=1.0)
    tx = make_optimizer(options.static_options(10), options.hyperparameters())
    params = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
    update = lambda g: ravel_pytree(tx.update(g, tx.init(params), params)[0])[0]
    small = {"kernel": jnp.full((1, 1), 0.3), "bias": jnp.full(1, 0.4)}
    np.testing.assert_allclose(update(small), [-0.04, -0.03], rtol=1e-6)
    large = jax.tree.map(lambda g: 20 * g, small)  # Of norm 10.
    np.testing.assert_allclose(update(large), [-0.08, -0.06], rtol=1e-6)


def test_flooding_turns_back_below_the_level_and_the_record_has_the_loss_itself(task):
    flooded = training.train(task, Options(**OPTIONS, flood_level=3.0)).curve["train_loss"]
    # Of ten classes it starts at 2.3, below the level, and is driven up.
    assert (flooded[:, 1] > flooded[:, 0]).all()
    assert (flooded[:, 0] > 2.3).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 0.0}, r"clip_norm=0.0 must be above 0"),
        ({"flood_level": -0.1}, r"flood_level=-0.1 must be at least 0"),
        ({"learning_rate": -1.0}, r"learning_rate=-1.0 must be at least 0, and finite"),
        ({"weight_decay": math.nan}, r"weight_decay=nan must be at least 0, and finite"),
        ({"free_epochs": -1.0}, r"free_epochs=-1.0 must be at least 0, and finite"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)
