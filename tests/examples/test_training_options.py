"""Options that every example has: clipping, flooding."""

import doctest
import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from examples import lm, training
from examples.tasks import small
from examples.tasks.images.models import Network
from examples.tasks.images.task import ImageTask
from examples.tasks.recommendation import ranking
from examples.tasks.text.corpus import Corpus
from examples.training import limits
from examples.training.optimizers import make_optimizer
from examples.training.options import LATER, Options
from examples.training.task import Layout
from examples.training.traits import OPTIMIZERS, WITH_DECAY, WITH_SWITCH, OptimizerName
from tests.examples.toys import toy_interactions

OPTIONS = {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 2, "seeds": 2, "warmup_epochs": 0.0}


@pytest.fixture(scope="module")
def task():
    return small.load("digits", 250)


def test_limits_doctest():
    assert doctest.testmod(limits).failed == 0


def test_a_subclass_keeps_the_limits_of_fields_that_it_gives_other_defaults():
    assert Options.epochs != lm.Config.epochs
    with pytest.raises(ValueError, match="epochs=0 must be at least 1"):
        lm.Config(epochs=0, warmup_epochs=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"momentum": 1.0}, "momentum=1.0 must be at least 0 and below 1"),
        ({"learning_rate": math.nan}, "learning_rate=nan must be at least 0, and finite"),
        ({"free_epochs": "never"}, "free_epochs='never' must be a number, or one of"),
        ({"free_epochs": -1.0}, "free_epochs=-1.0 must be at least 0, and finite"),
        ({"rest_learning_rate": 0.1}, "is of adam_h and muon_h alone; leave it at None"),
        ({"average_over": 3}, "schedule='polynomial': it is of abel alone; leave it at 1"),
    ],
)
def test_what_is_out_of_its_limits_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Options(**given)


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


LAYERS, SHAPES = 3, {"kernel": (4, 6), "scale": (4,)}


@pytest.mark.parametrize(
    ("optimizer", "bias_optimizer"),
    [
        *((name, None) for name in get_args(OptimizerName)),
        *(("lars", "sgd"), ("lamb", "adam"), ("adam_lawn", "nesterov")),
    ],
)
def test_a_stacked_layer_is_trained_as_it_would_be_alone(optimizer, bias_optimizer):
    free = {"free_epochs": 0.2} if optimizer in WITH_SWITCH else {}
    decay = {"weight_decay": 0.1} if optimizer in WITH_DECAY else {}
    options = Options(
        optimizer=optimizer,
        bias_optimizer=bias_optimizer,
        epochs=2,
        warmup_epochs=0,
        **free,
        **decay,
    )
    static, tuned = options.static_options(10), options.hyperparameters()
    rng = np.random.default_rng(0)
    # Of every layer its weights and five gradients, the more of either the larger its number.
    draw = lambda i, shape: (i + 1) * rng.normal(size=(6, *shape)).astype(np.float32)
    layers = [{name: draw(i, shape) for name, shape in SHAPES.items()} for i in range(LAYERS)]

    def train(draws, layout):
        tx = make_optimizer(static, tuned, layout)

        def step(carry, grads):
            params, state = carry
            updates, state = tx.update(grads, state, params, margin=0.0)
            return (optax.apply_updates(params, updates), state), None

        params = jax.tree.map(lambda x: x[0], draws)
        gradients = jax.tree.map(lambda x: x[1:], draws)
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), gradients)
        return params

    stacked = jax.tree.map(lambda *x: np.stack(x, axis=1), *layers)
    together = jax.jit(lambda x: train({"blocks": x}, Layout(stacked=("blocks",))))(stacked)
    alone = jax.jit(lambda x: train({"block": x}, Layout()))
    for i, layer in enumerate(layers):
        for name, w in alone(layer)["block"].items():
            assert (w != layer[name][0]).all()
            np.testing.assert_allclose(together["blocks"][name][i], w, rtol=1e-5, atol=1e-6)


def test_a_record_has_the_options_that_are_not_as_they_were_before_there_were_such():
    assert not {*LATER} & Options().config().keys()
    given = {"momentum": 0.95, "schedule": "cosine", "bias_optimizer": "sgd", "final_rate": 0.1}
    config = Options(**given).config()
    assert {name: config[name] for name in {*LATER} & config.keys()} == given


def test_the_table_of_optimizers_has_exactly_their_names():
    assert (*OPTIMIZERS,) == get_args(OptimizerName)  # In the order in which errors list them.


@pytest.mark.parametrize("name", ["digits", "images", "recommendation", "text"])
def test_the_places_that_a_task_names_are_in_its_model(name):
    tasks = {
        "digits": lambda: small.load("digits", 250),
        "images": lambda: ImageTask(
            classes=10, network=Network(model="vgg5", width=0.25, dtype="float32")
        ),
        "recommendation": lambda: ranking.make_task(toy_interactions(), 20, (8, 4), None),
        "text": lambda: lm.make_task(lm.Config(), Corpus(bytes(600_000), bytes(900), 1, "")),
    }
    task = tasks[name]()
    state = nnx.state(nnx.eval_shape(lambda: task.model(nnx.Rngs(0))), nnx.Param)
    paths = jax.tree.leaves_with_path(nnx.as_pure(state))
    components = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    for place in task.layout.stacked + task.layout.ends:
        assert any(place in path.split("/") for path in components)


def test_muon_turns_matrices_orthogonal_and_leaves_the_ends_to_adam():
    options = Options(optimizer="muon", epochs=2, warmup_epochs=0, learning_rate=1.0)
    layout = Layout(stacked=("blocks",), ends=("embedding", "head"))
    tx = make_optimizer(options.static_options(10), options.hyperparameters(), layout)
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    params = {
        "blocks": {"kernel": normal(2, 4, 6), "scale": normal(2, 4)},
        "conv": {"kernel": normal(3, 3, 2, 4)},
        "embedding": {"embedding": normal(5, 4)},
        "head": {"kernel": normal(4, 5)},
    }
    steps, _ = jax.jit(lambda w: tx.update(w, tx.init(w), w))(params)
    # Singular values near one another, and a length of 0.2 per element.
    for matrix in (*steps["blocks"]["kernel"], steps["conv"]["kernel"].reshape(18, 4)):
        values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
        assert values.shape == (4,)
        assert values.min() > 0.5 * values.max()
        np.testing.assert_allclose(np.sqrt(np.sum(values**2) / matrix.size), 0.2, rtol=0.3)
    # Adam's first step is as long for every element, and Muon's is not.
    spread = lambda leaf: np.ptp(np.abs(leaf)) / np.abs(leaf).mean()
    for leaf in (steps["blocks"]["scale"], *jax.tree.leaves((steps["embedding"], steps["head"]))):
        assert spread(leaf) < 0.01
    assert spread(steps["blocks"]["kernel"]) > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 0.0}, r"clip_norm=0.0 must be above 0"),
        ({"flood_level": -0.1}, r"flood_level=-0.1 must be at least 0"),
        ({"learning_rate": -1.0}, r"learning_rate=-1.0 must be at least 0, and finite"),
        ({"weight_decay": math.nan}, r"weight_decay=nan must be at least 0, and finite"),
        ({"free_epochs": -1.0}, r"free_epochs=-1.0 must be at least 0, and finite"),
        (
            {"schedule": "exponential"},
            r"schedule='exponential' must be one of \('polynomial', 'cosine'",
        ),
        (
            {"schedule": "abel"},
            r"schedule='abel' with optimizer='adam_lawn': it scales whole steps",
        ),
        ({"schedule": "plateau", "optimizer": "muon_h"}, r"a fraction of one leaves the spheres"),
        ({"decay_factor": 1.0}, r"decay_factor=1.0 must be above 0 and below 1"),
        ({"decays_at": (0.6, 0.3)}, r"decays_at=\(0.6, 0.3\) must rise"),
        ({"last_decay_at": 1.0}, r"last_decay_at=1.0 must be above 0 and below 1"),
        ({"average_over": 0}, r"average_over=0 must be at least 1"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)
