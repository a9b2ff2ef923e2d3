"""The image networks: their published sizes, their precisions, how they start, their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from examples.tasks.images import Network, models, resnet
from examples.tasks.images.layers import BatchNorm, batch_norm, max_pool_2x2
from examples.training.sharding import BATCH, MeshConfig

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")


def abstract(name, classes, **others):
    """A network without its arrays."""
    return nnx.eval_shape(lambda: Network(model=name, **others).make(classes, nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        # Convolutions 3-64-128-256-512 and their normalisation, and 512 to 10.
        ("vgg5", 10, 9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 3 * 960 + 513 * 10),
        ("vgg16", 10, 14_728_266),
        ("vgg19", 10, 20_040_522),
        ("resnet18", 10, 11_173_962),
        # Two blocks a stage, of 128, 256 and 512 channels; the published 11.0 million.
        (
            "wrn16-8",
            10,
            9 * (3 * 16 + 16 * 128 + 3 * 128**2 + 128 * 256 + 3 * 256**2 + 256 * 512 + 3 * 512**2)
            + (16 * 128 + 128 * 256 + 256 * 512)  # the shortcuts
            + 2 * (16 + 4 * 128 + 4 * 256 + 4 * 512)  # normalisations
            + 513 * 10,
        ),
        ("wrn28-10", 10, 36_479_194),
        ("wrn28-10", 100, 36_536_884),
        ("resnet50", 1000, 25_557_032),
    ],
)
def test_parameters_and_precisions(name, classes, parameters):
    model = abstract(name, classes)
    params, rest = nnx.state(model, nnx.Param), nnx.state(model, nnx.Not(nnx.Param))
    assert sum(x.size for x in jax.tree.leaves(params)) == parameters
    assert {x.dtype for x in jax.tree.leaves((params, rest))} == {jnp.dtype(jnp.float32)}
    assert {x.ndim for x in jax.tree.leaves(rest)} == {1}


@pytest.mark.parametrize(
    ("name", "size"),
    [("vgg5", 32), ("vgg19", 32), ("resnet18", 32), ("wrn16-8", 32), ("wrn28-10", 32)],
)
def test_logits_are_float32_and_what_lies_between_is_bfloat16(name, size):
    classes, model = 7, abstract(name, 7)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.bfloat16)
    split = nnx.split(model)
    program = jax.make_jaxpr(lambda s, x: nnx.merge(split[0], s)(x))(nnx.as_pure(split[1]), images)
    (logits,) = program.out_avals
    assert (logits.shape, logits.dtype) == ((2, classes), jnp.float32)
    convolved = set(dtypes_of_outputs(program.jaxpr, "conv_general_dilated"))
    assert convolved == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("vgg5", 100),
        *(pytest.param(name, 10, marks=pytest.mark.slow) for name in ("resnet18", "wrn16-8")),
    ],
)
def test_the_first_loss_is_that_of_equal_probabilities(name, classes):
    @jax.jit
    def logits(key):
        network = Network(model=name, width=1 / 16, dtype="float32")
        model = network.make(classes, nnx.Rngs(key))
        return model(jax.random.normal(key, (20, 32, 32, 3)))

    # Over all labels, so that none is favoured.
    losses = -jax.nn.log_softmax(logits(jax.random.key(0)))
    np.testing.assert_allclose(jnp.mean(losses), np.log(classes), rtol=0.01)
    assert jnp.std(losses) > 0


def test_resnet50_is_v1_5():
    """The stride is in the convolution of 3 by 3, and ImageNet's 224 pixels become 7."""
    model = abstract("resnet50", 1000)
    strides = [(b[0].conv1.strides, b[0].conv2.strides) for b in model.stages]
    assert strides == [(1, 1), (1, 2), (1, 2), (1, 2)]


def dtypes_of_outputs(jaxpr, primitive):
    """Of all the equations of a kind, those of inner programs too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == primitive:
            yield equation.outvars[0].aval.dtype
        for value in equation.params.values():
            for inner in jax.tree.leaves(value, is_leaf=lambda x: hasattr(x, "eqns")):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from dtypes_of_outputs(inner, primitive)


def test_constants_of_batch_normalisation_reach_every_layer(monkeypatch):
    """The last scale of a block starts as stated, all others at 1."""
    two_blocks = functools.partial(resnet.ResNet, resnet.BasicBlock, (1, 1, 0, 0))
    small = functools.partial(two_blocks, small_images=True)
    monkeypatch.setitem(models.MODELS, "resnet18", small)
    given = {"bn_momentum": 0.94, "bn_epsilon": 4e-6, "last_bn_scale": 0.4138}
    network = Network(model="resnet18", width=1 / 16, dtype="float32", **given)
    model = network.make(10, nnx.Rngs(0))
    norms = [(path[-1], x) for path, x in nnx.iter_graph(model) if isinstance(x, BatchNorm)]
    assert len(norms) == 1 + 2 * 2 + 1
    for name, norm in norms:
        assert (norm.momentum, norm.epsilon) == (0.94, 4e-6)
        start = 0.4138 if name == "bn2" else 1.0
        np.testing.assert_array_equal(norm.scale[...], np.float32(start))


def test_names_and_widths_are_checked():
    with pytest.raises(ValueError, match=r"model='vgg11' must be one of vgg5, vgg16"):
        Network(model="vgg11").make(10, nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"width=0.01 must be at least 1/16"):
        abstract("vgg5", 10, width=0.01)


class TestLayers:
    """What the networks are made of."""

    def test_a_layer_in_bfloat16_rounds_its_result_alone(self):
        x = jax.random.normal(jax.random.key(0), (64, 3)) * 3 + 100
        exact, rounded = (batch_norm(3, dtype=d, rngs=nnx.Rngs(0)) for d in ("float32", "bfloat16"))
        for norm in (exact, rounded):
            # Numbers that bfloat16 cannot hold.
            norm.mean[...], norm.var[...] = x.mean(0), x.var(0)
            norm.scale[...], norm.bias[...] = jnp.full(3, 1.001), jnp.full(3, 0.1001)
            norm.eval()
        np.testing.assert_array_equal(rounded(x), exact(x).astype(jnp.bfloat16))

    def test_running_averages_move_by_a_tenth(self):
        norm = batch_norm(2, dtype="float32", rngs=nnx.Rngs(0))
        x = jnp.array([[0.0, 10.0], [2.0, 30.0]])
        norm(x)
        np.testing.assert_allclose(norm.mean[...], [0.1, 2.0], rtol=1e-6)
        np.testing.assert_allclose(norm.var[...], [0.9 + 0.1, 0.9 + 10.0], rtol=1e-6)

    def test_halved_takes_the_largest_of_four(self):
        x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
        y = np.array(max_pool_2x2(jnp.asarray(x)))
        assert y.shape == (2, 2, 3, 3)
        for i, j in np.ndindex(2, 3):
            block = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            np.testing.assert_array_equal(y[:, i, j], block.max(axis=(1, 2)))


class TestVirtualBatches:
    """Batch normalisation over a stated number of images that follow each other."""

    def norm(self, virtual_batch_size=None, dtype="float32"):
        """A layer of three channels whose scale and bias are not those that it starts with."""
        norm = batch_norm(3, dtype=dtype, rngs=nnx.Rngs(0))
        norm.scale[...], norm.bias[...] = jnp.array([0.5, 1.0, 2.0]), jnp.array([-1.0, 0.0, 3.0])
        norm.virtual_batch_size = virtual_batch_size
        return norm

    @pytest.fixture
    def x(self):
        """Twelve images, each brighter than the one before."""
        x = np.random.default_rng(0).normal(size=(12, 2, 5, 3)) + np.arange(12)[:, None, None, None]
        return jnp.asarray(x, jnp.float32)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_one_virtual_batch_is_the_batch(self, x, dtype):
        whole, virtual = self.norm(dtype=dtype), self.norm(12, dtype)
        expected, y = whole(x.astype(dtype)), virtual(x.astype(dtype))
        assert y.dtype == dtype
        # Of the last bit where a sum was taken in another order.
        np.testing.assert_allclose(
            *(np.float32(array) for array in (y, expected)),
            rtol=1e-2 if dtype == "bfloat16" else 1e-5,
            atol=1e-5,
        )
        for found, of in ((virtual.mean, whole.mean), (virtual.var, whole.var)):
            assert found.dtype == jnp.float32
            np.testing.assert_allclose(found[...], of[...], rtol=1e-5)

    def test_each_is_normalised_by_its_own_statistics(self, x):
        norm = self.norm(4)
        y, groups = norm(x), np.float64(x).reshape(3, 4, 2, 5, 3)
        mean, var = (of(groups, axis=(1, 2, 3), keepdims=True) for of in (np.mean, np.var))
        expected = (groups - mean) / np.sqrt(var + 1e-5) * [0.5, 1, 2] + [-1, 0, 3]
        np.testing.assert_allclose(y, expected.reshape(x.shape), rtol=1e-4, atol=1e-4)
        # One step of a tenth towards the means over the three.
        np.testing.assert_allclose(norm.mean[...], 0.1 * mean.mean(0).ravel(), rtol=1e-5)
        np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var.mean(0).ravel(), rtol=1e-5)

    def test_statistics_are_float32_where_the_images_are_bfloat16(self, x):
        rounded = x.astype(jnp.bfloat16)
        norm, exact = self.norm(4, "bfloat16"), self.norm(4)
        y = norm(rounded)
        # The result alone is rounded.
        np.testing.assert_array_equal(y, exact(rounded).astype(jnp.bfloat16))
        np.testing.assert_array_equal(norm.var[...], exact.var[...])

    def test_evaluation_takes_the_running_averages_for_any_number_of_images(self, x):
        norm = self.norm(4)
        norm.mean[...], norm.var[...] = jnp.array([1.0, 2.0, 3.0]), jnp.array([4.0, 5.0, 6.0])
        norm.eval()
        expected = (x[:5] - norm.mean[...]) / jnp.sqrt(norm.var[...] + 1e-5) * norm.scale[...]
        np.testing.assert_allclose(norm(x[:5]), expected + norm.bias[...], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(norm.mean[...], [1, 2, 3])

    def test_gradients_are_those_of_one_layer_a_virtual_batch(self, x):
        """The whole-batch layer of Flax, given one virtual batch after the other."""
        structure, *states = nnx.split(self.norm(), nnx.Param, ...)
        params, rest = map(nnx.as_pure, states)
        norm_of_four = nnx.graphdef(self.norm(4))
        g = jax.random.normal(jax.random.key(0), x.shape)

        def apart(params, x):
            parts = [nnx.merge(structure, params, rest)(x[i : i + 4]) for i in range(0, 12, 4)]
            return jnp.vdot(g, jnp.concatenate(parts))

        together = lambda params, x: jnp.vdot(g, nnx.merge(norm_of_four, params, rest)(x))
        expected, gradients = (
            jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x) for loss in (apart, together)
        )
        for found, of in zip(*map(jax.tree.leaves, (gradients, expected)), strict=True):
            np.testing.assert_allclose(found, of, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("name", ["vgg19", "resnet18", "resnet50", "wrn28-10"])
    def test_all_layers_of_all_networks_have_them(self, name):
        model = abstract(name, 10, virtual_batch_size=64)
        norms = [m for _, m in nnx.iter_modules(model) if isinstance(m, nnx.BatchNorm)]
        assert len(norms) >= 16
        assert {(type(norm), norm.virtual_batch_size) for norm in norms} == {(BatchNorm, 64)}

    @pytest.mark.parametrize("size", [5, 0, 24])
    def test_a_batch_that_they_do_not_divide(self, x, size):
        with pytest.raises(
            ValueError, match=f"virtual_batch_size={size} must divide batch_size=12"
        ):
            self.norm(size)(x)

    @pytest.mark.parametrize(
        ("virtual_batch_size", "exchanged"), [(None, True), (8, True), (4, False)]
    )
    def test_devices_exchange_none_of_their_own_statistics(self, virtual_batch_size, exchanged):
        """Four images on each of eight devices: the logits of VGG-5, and their gradient.

        The running averages are not asked for, and nothing waits for them.
        """
        network = Network(
            model="vgg5", width=1 / 16, dtype="float32", virtual_batch_size=virtual_batch_size
        )
        structure, state = nnx.split(nnx.eval_shape(lambda: network.make(10, nnx.Rngs(0))))

        def gradient(state, x, g):
            def logits_of(x):  # Merged inside, where the averages may then change.
                return nnx.merge(structure, state)(x)

            logits, pull_back = jax.vjp(logits_of, x)
            return logits, *pull_back(g)

        with MeshConfig(data=8).use():
            split = jax.NamedSharding(jax.sharding.get_mesh(), PartitionSpec(BATCH))
            shape = lambda *of: jax.ShapeDtypeStruct(of, "float32", sharding=split)
            of_batch = shape(32, 16, 16, 3), shape(32, 10)
            program = jax.jit(gradient, out_shardings=split)
            text = program.lower(nnx.as_pure(state), *of_batch).compile().as_text()
        found = {name for name in COLLECTIVES if f" {name}(" in text or f" {name}-start(" in text}
        assert bool(found) == exchanged, found
