"""Label smoothing of the recommender's two labels."""

import numpy as np
import pytest
from flax import nnx

from examples import ncf
from examples.tasks.recommendation import ranking
from lawn_optax import metrics
from tests.examples.toys import toy_interactions

PAIRS = np.arange(5), np.arange(5)


def test_label_smoothing_gives_a_share_to_the_other_label():
    smoothed = ranking.make_task(toy_interactions(), 50, (8, 6, 4), None, 0.05)
    model = nnx.jit(lambda: smoothed.model(nnx.Rngs(0)))()
    labels, weights = np.array([True, False, True, False, True]), np.ones(5, np.float32)
    losses, margins = smoothed.loss(model, (*PAIRS, labels, weights))
    np.testing.assert_allclose(margins, metrics.logit_margin(model(*PAIRS), labels))
    right, wrong = np.log1p(np.exp(-margins)), np.log1p(np.exp(margins))
    np.testing.assert_allclose(losses, 0.95 * right + 0.05 * wrong, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 0.5}, r"label_smoothing=0.5 must be at least 0 and below 0.5"),
        (
            {"label_smoothing": 0.1, "loss": "focal"},
            r"label_smoothing=0.1 with loss='focal': it is of bce alone",
        ),
        ({"gamma": 5.0}, r"gamma=5.0 with loss='bce': it is of focal alone; leave it at 2.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ncf.Config(dataset="movielens-100k", **options)
