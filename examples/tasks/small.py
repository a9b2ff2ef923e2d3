"""Small problems that need no download: a thousand examples or so, and seconds to train.

`digits`         handwritten digits, from scikit-learn: 8 x 8 pixels
`breast-cancer`  benign or malignant, from scikit-learn: 30 measurements
`wine`           three cultivars, from scikit-learn: 13 measurements
`made`           scikit-learn's `make_classification`: five classes, 10 of 50 features tell, a tenth
                 of the labels is drawn anew
`friedman`       the quartile of a smooth function of five of ten numbers, scikit-learn's
                 `make_friedman1`
`teacher`        which of ten outputs of a random network is the largest
`parity`         whether three of 30 signs multiply to plus: a rule that can be learned or memorised
`addition`       the sum of two numbers, modulo 31: a rule that is learned long after the examples,
                 if at all ("grokking", Power et al., arXiv 2201.02177)
`lines`          which of 20 modules of Python's standard library a line is from, by its words
`mnist1d`        Greydanus' one-dimensional digits (arXiv 2011.14439), from the package `mnist1d`
`spirals`        which of three spirals in the plane, with some noise, a point is from
`moons`          which of two half-moons that overlap, scikit-learn's `make_moons`
`checkerboard`   the colour of a field of a checkerboard of four by four
`rings`          whether a point is from an even or an odd one of four rings
"""

import itertools
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from sklearn import datasets

from examples.tasks import standard_library
from examples.tasks.labelled import Labelled

Arrays = tuple[np.ndarray, np.ndarray]
SmallName = Literal[
    "digits",
    "breast-cancer",
    "wine",
    "made",
    "friedman",
    "teacher",
    "parity",
    "addition",
    "lines",
    "mnist1d",
    "spirals",
    "moons",
    "checkerboard",
    "rings",
]
POINTS = 3000  # Of each problem whose examples are drawn.


class Small(NamedTuple):
    """Says what a problem consists of.

    Attributes:
      load: to its features and labels, `(n, features)` and `(n,)`.
      train: how many examples to train on.
      validation: how many to choose by; the others are the test.
      widths: of the hidden layers.
    """

    load: Callable[[], Arrays]
    train: int
    validation: int
    widths: tuple[int, ...] = (128, 128)


def load(name: SmallName, batch_size: int, noise: float = 0.0) -> Labelled:
    """Load a problem, always split in the same way.

    Args:
      name: which one.
      batch_size: training examples in a batch, at most all.
      noise: share of the training labels that are changed to another class, always the same ones.

    Raises:
      ValueError: for a share or a batch size that cannot be.
      ImportError: if a package that holds the data is not installed.
    """
    problem = PROBLEMS[name]
    if not 0 <= noise <= 1:
        raise ValueError(f"noise={noise} must be a share between 0 and 1.")
    if not 1 <= batch_size <= problem.train:
        raise ValueError(
            f"batch_size={batch_size} must lie between 1 and the {problem.train:,} examples."
        )
    features, classes = problem.load()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(classes))
    x, labels = features[order].astype(np.float32), classes[order].astype(np.int32)
    count = int(labels.max()) + 1
    wrong = rng.permutation(problem.train)[: round(noise * problem.train)]
    labels[wrong] = (labels[wrong] + rng.integers(1, count, len(wrong))) % count
    ends = (0, problem.train, problem.train + problem.validation, len(labels))
    train, validation, test = (
        (jnp.asarray(x[a:b]), jnp.asarray(labels[a:b])) for a, b in itertools.pairwise(ends)
    )
    return Labelled(train, validation, test, count, problem.widths, batch_size)


def _standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / x.std(axis=0)


def _digits() -> Arrays:
    pixels, labels = datasets.load_digits(return_X_y=True)
    return pixels / 16, labels


def _breast_cancer() -> Arrays:
    x, labels = datasets.load_breast_cancer(return_X_y=True)
    return _standardised(x), labels


def _wine() -> Arrays:
    x, labels = datasets.load_wine(return_X_y=True)
    return _standardised(x), labels


def _made() -> Arrays:
    x, labels = datasets.make_classification(
        2500, 50, n_informative=10, n_classes=5, flip_y=0.1, random_state=0
    )
    return _standardised(x), labels


def _friedman() -> Arrays:
    x, y = datasets.make_friedman1(POINTS, random_state=0)
    return _standardised(x), np.digitize(y, np.quantile(y, (0.25, 0.5, 0.75)))


def _teacher() -> Arrays:
    rng = np.random.default_rng(0)
    x, w, v = rng.normal(size=(POINTS, 20)), rng.normal(size=(20, 16)), rng.normal(size=(16, 10))
    return x, _standardised(np.tanh(0.7 * x @ w) @ v).argmax(axis=1)


def _parity() -> Arrays:
    signs = np.random.default_rng(0).choice((-1, 1), (3000, 30))
    return signs, signs[:, :3].prod(axis=1) > 0


def _addition() -> Arrays:
    a, b = np.divmod(np.arange(31**2), 31)
    return np.concatenate([np.eye(31)[a], np.eye(31)[b]], axis=1), (a + b) % 31


def _lines() -> Arrays:
    folder = standard_library.folder()
    found = standard_library.modules(folder)
    if not found:
        raise standard_library.missing(folder)
    largest = sorted(found, key=lambda name: (-found[name].stat().st_size, name))[:20]
    rows, labels = [], []
    for label, name in enumerate(largest):
        for line in found[name].read_text(encoding="utf-8", errors="ignore").splitlines():
            words = re.findall(r"[A-Za-z_]{3,}", line)
            if len(words) >= 3:
                rows.append([zlib.crc32(word.encode()) % 1000 for word in words])
                labels.append(label)
    chosen = np.random.default_rng(0).permutation(len(rows))[:6000]
    x = np.zeros((len(chosen), 1000))
    for row, i in zip(x, chosen, strict=True):
        row[rows[i]] = 1
    return x, np.array(labels)[chosen]


def _mnist1d() -> Arrays:
    try:
        from mnist1d import data
    except ImportError as error:
        raise ImportError(
            "dataset=mnist1d is generated by the package mnist1d: pip install mnist1d"
        ) from error
    made = data.make_dataset(data.get_dataset_args())
    parts = zip(*[(made[f"x{part}"], made[f"y{part}"]) for part in ("", "_test")], strict=True)
    x, labels = (np.concatenate(part) for part in parts)
    return x, labels


def _spirals() -> Arrays:
    rng = np.random.default_rng(0)
    along, arm = rng.uniform(0.3, 3.2 * np.pi, POINTS), rng.integers(0, 3, POINTS)
    return _polar(along / 5, along + arm * 2 * np.pi / 3, rng, noise=0.15), arm


def _moons() -> Arrays:
    x, moon = datasets.make_moons(POINTS, noise=0.3, random_state=0)
    return _standardised(x), moon


def _checkerboard() -> Arrays:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 4, (POINTS, 2))
    colour = np.floor(x).sum(axis=1) % 2
    return _standardised(x + rng.normal(0, 0.05, x.shape)), colour


def _rings() -> Arrays:
    rng = np.random.default_rng(0)
    ring = rng.integers(1, 5, POINTS)
    return _polar(ring / 2, rng.uniform(0, 2 * np.pi, POINTS), rng, noise=0.12), ring % 2


def _polar(
    radius: np.ndarray, angle: np.ndarray, rng: np.random.Generator, noise: float
) -> np.ndarray:
    """Return points of the plane, moved by normal noise."""
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points + rng.normal(0, noise, points.shape)


PROBLEMS: Mapping[SmallName, Small] = {
    "digits": Small(_digits, 1000, 400, widths=(512, 512)),
    "breast-cancer": Small(_breast_cancer, 200, 100),
    "wine": Small(_wine, 80, 40),
    "made": Small(_made, 500, 500),
    "friedman": Small(_friedman, 500, 500),
    "teacher": Small(_teacher, 1000, 500),
    "parity": Small(_parity, 1000, 500),
    "addition": Small(_addition, 600, 150),
    "lines": Small(_lines, 3000, 1000),
    "mnist1d": Small(_mnist1d, 4000, 500),
    "spirals": Small(_spirals, 300, 300, widths=(64, 64)),
    "moons": Small(_moons, 150, 300),
    "checkerboard": Small(_checkerboard, 300, 300, widths=(64, 64)),
    "rings": Small(_rings, 300, 300, widths=(64, 64)),
}
