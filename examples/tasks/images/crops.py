"""Crops photographs and resizes them on the host, for training and for evaluation.

In training a random part, `RandomResizedCrop(224)` and `RandomHorizontalFlip()` of torchvision; to
evaluate, `Resize(256)` and `CenterCrop(224)`. Both resize by Pillow's bilinear filter, which
averages over all the pixels that fall into one.
"""

import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

SCALE = (0.08, 1.0)  # Of the area.
RATIO = (3 / 4, 4 / 3)  # Of width to height.
TRIES = 10


class Box(NamedTuple):
    """A part of an image, in pixels: its first column and row, and those after its last."""

    left: int
    top: int
    right: int
    bottom: int


def random_box(rng: np.random.Generator, width: int, height: int) -> Box:
    """Draw a part of a uniform share of the area, its ratio uniform in the logarithm.

    Where none of ten draws fits into the image, the largest part in its middle of a ratio allowed.
    """
    low, high = RATIO
    for _ in range(TRIES):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return _box(int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h)
    w, h = min(width, round(height * high)), min(height, round(width / low))
    return _box((width - w) // 2, (height - h) // 2, w, h)


def for_training(file: bytes, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a random part of an image file, flipped half the time: `(size, size, 3)` uint8."""
    image = _opened(file)
    part = image.crop(random_box(rng, *image.size))
    pixels = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def for_evaluation(file: bytes, size: int) -> np.ndarray:
    """Cut the middle of an image file, 7/8 of its shorter side: `(size, size, 3)` uint8."""
    image = _opened(file)
    shorter = size * 256 // 224
    width, height = (shorter * side // min(image.size) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    middle = _box(round((width - size) / 2), round((height - size) / 2), size, size)
    return np.asarray(resized.crop(middle))


def _box(left: int, top: int, width: int, height: int) -> Box:
    return Box(left, top, left + width, top + height)


def _opened(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file)).convert("RGB")
