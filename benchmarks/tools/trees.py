"""Makes parameter trees of real models: the shapes that optimizers meet, filled with noise."""

from collections.abc import Callable

import jax

Shapes = dict[str, tuple[int, ...]]


def block(width: int = 4096, layers: int = 8) -> Shapes:
    """Return one leaf of stacked square matrices: memory traffic and nothing else."""
    return {"kernel": (layers, width, width)}


def ncf(users: int = 6040, items: int = 3706) -> Shapes:
    """Return neural collaborative filtering: two embeddings, a tower of 256-128-64-1."""
    shapes: Shapes = {"users": (users, 128), "items": (items, 128)}
    for i, (fan_in, fan_out) in enumerate([(256, 128), (128, 64), (64, 1)]):
        shapes |= _layer(f"dense{i}", (fan_in, fan_out))
    return shapes


def vgg19(classes: int = 10) -> Shapes:
    """Return VGG-19 with batch normalisation and one fully connected layer, for CIFAR."""
    shapes: Shapes = {}
    channels = 3
    for i, width in enumerate(2 * [64] + 2 * [128] + 4 * [256] + 8 * [512]):
        shapes |= _layer(f"conv{i}", (3, 3, channels, width))
        shapes |= {f"norm{i}/scale": (width,), f"norm{i}/bias": (width,)}
        channels = width
    return shapes | _layer("dense", (512, classes))


def resnet50(classes: int = 1000) -> Shapes:
    """Return ResNet-50: 161 leaves, most of them small."""
    shapes: Shapes = {"stem": (7, 7, 3, 64), "stem_norm/scale": (64,), "stem_norm/bias": (64,)}
    channels = 64
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for i in range(blocks):
            name = f"stage{stage}/block{i}"
            convs = [(1, 1, channels, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            if i == 0:
                convs.append((1, 1, channels, 4 * width))
            for j, shape in enumerate(convs):
                shapes[f"{name}/conv{j}"] = shape
                shapes |= {f"{name}/norm{j}/{x}": (shape[-1],) for x in ("scale", "bias")}
            channels = 4 * width
    return shapes | _layer("dense", (2048, classes))


def gpt2(layers: int = 12, width: int = 768) -> Shapes:
    """Return a transformer of 124 million parameters, its layers stacked along a first axis."""
    stacked = {
        "attention/qkv": (width, 3 * width),
        "attention/out": (width, width),
        "mlp/in": (width, 4 * width),
        "mlp/out": (4 * width, width),
        "norm1/scale": (width,),
        "norm2/scale": (width,),
    }
    shapes: Shapes = {"tokens": (50257, width), "positions": (1024, width)}
    return shapes | {f"blocks/{name}": (layers, *shape) for name, shape in stacked.items()}


TREES: dict[str, Callable[[], Shapes]] = {
    "block": block,
    "ncf": ncf,
    "vgg19": vgg19,
    "resnet50": resnet50,
    "gpt2": gpt2,
}


def fill(shapes: Shapes, key: jax.Array, scale: float = 0.02) -> dict[str, jax.Array]:
    """Fill those shapes with normal noise, float32."""
    keys = jax.random.split(key, len(shapes))
    return {
        name: scale * jax.random.normal(k, shape)
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def _layer(name: str, shape: tuple[int, ...]) -> Shapes:
    return {f"{name}/kernel": shape, f"{name}/bias": shape[-1:]}
