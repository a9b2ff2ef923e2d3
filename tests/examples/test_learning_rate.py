"""The schedules by name, each against its values by hand, from the steps of plain SGD."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import cifar, training
from examples.tasks import small
from examples.training import limits
from examples.training.optimizers import make_optimizer
from examples.training.options import Options
from examples.training.traits import WITH_DECAY, ScheduleName

PEAK, STEPS_PER_EPOCH = 2.0, 4
CIFAR = cifar.Config(
    dataset="cifar10",
    optimizer="sgd",
    learning_rate=PEAK,
    clip_norm=None,
    epochs=20,
    warmup_epochs=0.0,
)


def rates(options, weights=None, losses=None):
    """The learning rate of every update, of a scalar weight that runs through given values."""
    static = options.static_options(STEPS_PER_EPOCH)._replace(momentum=0.0)
    n = options.epochs * STEPS_PER_EPOCH
    weights = jnp.ones(n) if weights is None else jnp.float32(weights)
    losses = jnp.ones(n) if losses is None else jnp.float32(losses)

    @jax.jit  # The peak is traced, as where a program runs a grid.
    def run(hyperparameters):
        tx = make_optimizer(static, hyperparameters)

        def step(state, seen):
            w, loss = seen
            update, state = tx.update(jnp.float32(-1), state, w, margin=0.0, value=loss)
            return state, update

        return jax.lax.scan(step, tx.init(jnp.float32(0)), (weights, losses))[1]

    return np.array(run(options.hyperparameters()), np.float64)


def by_epoch(epochs):
    """Each epoch's value for all its updates."""
    return np.repeat(epochs, STEPS_PER_EPOCH)


def warm_up(of_peak, steps):
    """Shares of the peak, the first of them by a linear warm-up."""
    of_peak[:steps] = np.arange(steps) / steps
    return PEAK * of_peak


def of(schedule, warmup_epochs=0.0, **changes):
    return dataclasses.replace(CIFAR, schedule=schedule, warmup_epochs=warmup_epochs, **changes)


@pytest.mark.parametrize("warmup_epochs", [0.0, 1.5])
def test_polynomial_cosine_step_wise_and_simple_are_as_by_hand(warmup_epochs):
    steps = int(warmup_epochs * STEPS_PER_EPOCH)
    t = np.arange(80)
    left = 1 - (t - steps) / (80 - steps)
    expected = {
        "polynomial": left,
        "cosine": (1 + np.cos(np.pi * (1 - left))) / 2,
        # Of 20 epochs 6, 12 and 16, as the paper's 60, 120 and 160 of 200; by 0.2 each.
        "step-wise": by_epoch([1.0] * 6 + [0.2] * 6 + [0.04] * 4 + [0.008] * 4),
        "simple": by_epoch([1.0] * 17 + [0.2] * 3),
    }
    for schedule, of_peak in expected.items():
        found = rates(of(schedule, warmup_epochs))
        np.testing.assert_allclose(found, warm_up(of_peak, steps), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", get_args(ScheduleName))
def test_every_schedule_warms_up_by_a_power_from_a_rate(schedule):
    found = rates(of(schedule, 1.5, initial_rate=0.5, warmup_power=2.0))
    np.testing.assert_allclose(found[:7], 0.5 + 1.5 * (np.arange(7) / 6) ** 2, rtol=1e-6)
    assert found[-1] < 0.5


def test_by_default_the_steps_are_those_of_imagenet():
    options = Options(optimizer="sgd", learning_rate=PEAK, epochs=9, schedule="step-wise")
    found = rates(dataclasses.replace(options, warmup_epochs=0.0))
    np.testing.assert_allclose(found, by_epoch(PEAK * np.repeat([1, 0.1, 0.01], 3)), rtol=1e-6)


def test_simple_decays_when_it_is_told_to():
    found = rates(of("simple", last_decay_at=0.25, decay_factor=0.1))
    np.testing.assert_allclose(found, by_epoch(PEAK * np.repeat([1, 0.1], [5, 15])), rtol=1e-6)


def test_decays_that_are_due_at_one_update_all_hold():
    found = rates(of("step-wise", epochs=1, decays_at=(0.3, 0.7, 0.76)))  # Updates 1, 3 and 3 of 4.
    np.testing.assert_allclose(found, PEAK * np.array([1, 0.2, 0.2, 0.008]), rtol=1e-6)


class ReduceLROnPlateau:
    """PyTorch's scheduler with its defaults, in float64."""

    factor, patience, threshold, cooldown = 0.1, 10, 1e-4, 0

    def __init__(self, rate):
        self.rate, self.best, self.bad_epochs = rate, np.inf, 0

    def step(self, loss):
        if loss < self.best * (1 - self.threshold):
            self.best, self.bad_epochs = loss, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.rate, self.bad_epochs = self.rate * self.factor, 0
        return self.rate


def test_plateau_is_that_of_pytorch_fed_with_the_mean_loss_of_an_epoch():
    rng = np.random.default_rng(0)
    epochs = 60
    # It falls, stays with gains below the threshold, falls again, then rises.
    course = np.concatenate([np.linspace(2, 1, 9), np.full(25, 1.0), np.linspace(0.9, 0.8, 4)])
    course = np.concatenate([course, np.linspace(0.8, 1.2, epochs - len(course))])
    course[9:34] -= 2e-6 * np.arange(25)
    noise = rng.normal(scale=0.1, size=(epochs, STEPS_PER_EPOCH))
    losses = course[:, None] + noise - noise.mean(axis=1, keepdims=True)
    by_pytorch = ReduceLROnPlateau(PEAK)
    after_epoch = [by_pytorch.step(loss) for loss in losses.mean(axis=1)]
    # PyTorch changes the rate between two epochs, Optax for the last update of an epoch.
    expected = np.roll(by_epoch([PEAK, *after_epoch]), -1)[: losses.size]
    found = rates(of("plateau", epochs=epochs, decay_factor=0.1), losses=losses.ravel())
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(set(after_epoch)) > 3


def test_abel_decays_at_the_second_turn_and_late():
    norms = [9, 7, 5, 6, 8, 9, 8, 7] + [6] * 12  # Turns at epochs 3 and 6, counted from 0.
    found = rates(of("abel"), weights=by_epoch(norms))
    expected = by_epoch(PEAK * np.repeat([1, 0.2, 0.04], [6, 11, 3]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    averaged = rates(of("abel", average_over=2), weights=by_epoch(norms))
    # Averages of two: falling to epoch 3, rising to 5, turned at 7.
    expected = by_epoch(PEAK * np.repeat([1, 0.2, 0.04], [7, 10, 3]))
    np.testing.assert_allclose(averaged, expected, rtol=1e-6)


# Of lars the momentum is of steps that the rate is already in: a decay of the rate fades in there,
# whereas abel scales what comes out.
@pytest.mark.parametrize("optimizer", [name for name in WITH_DECAY if name != "lars"])
def test_around_any_free_optimizer_abel_without_a_bounce_is_simple(optimizer):
    params = {"kernel": jnp.eye(3), "bias": jnp.ones(3)}

    def steps(schedule):
        options = of(schedule, optimizer=optimizer, weight_decay=0.01, clip_norm=1.0)
        tx = make_optimizer(options.static_options(STEPS_PER_EPOCH), options.hyperparameters())
        step = lambda state, g: tx.update({"kernel": g, "bias": g[0]}, state, params)[::-1]
        gradients = jax.random.normal(jax.random.key(0), (20 * STEPS_PER_EPOCH, 3, 3))
        return jax.jit(lambda: jax.lax.scan(step, tx.init(params), gradients)[1])()

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *map(steps, ("abel", "simple"))
    )


def test_a_run_sees_its_training_loss():
    task = small.load("digits", 250)
    shared = {"optimizer": "sgd", "learning_rate": 1e-9, "epochs": 14, "warmup_epochs": 0.0}
    train = lambda schedule: training.train(
        task, Options(**shared, seeds=1, schedule=schedule, decay_factor=0.5), every_epoch=False
    )
    # A rate too low to learn by: on a plateau from the second epoch on.
    scale = train("plateau").state.opt_state[1].scale
    np.testing.assert_array_equal(scale, [0.5])


def test_a_record_has_the_schedule_where_it_is_not_as_it_was():
    only = limits.of(Options, limits.Only).items()
    of_schedule = {"schedule", *(name for name, limit in only if "schedule" in limit.chosen_by)}
    told = lambda options: {k: v for k, v in options.config().items() if k in of_schedule}
    assert told(of("polynomial")) == {}
    assert told(of("step-wise")) == {"schedule": "step-wise"}  # With the defaults of CIFAR.
    assert told(of("abel", average_over=5)) == {"schedule": "abel", "average_over": 5}
