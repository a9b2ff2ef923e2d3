"""The optimizers that are measured, and the least memory traffic that each of them can do with.

The floor counts, in float32, what must pass between memory and the processor: each sweep over the
parameters reads its operands and writes its results once, and one sweep cannot use what is summed
in it. With `s` moments a parameter, those of Adam being two:

    plain            read w, g, s; write w, s                                    4 (3 + 2s)
    a trust ratio    read w, g, s; write s; sum (w, r) | read w, s; write w      4 (4 + 3s)
    on a sphere      sum (w, g) | then as with a trust ratio                     4 (6 + 3s)
    w = c v / ||v||  sum (v, g) | read v, g, s; write v, s | read v; write w     4 (7 + 2s)
"""

from collections.abc import Callable
from typing import NamedTuple

import optax

import lawn_optax
from benchmarks.tools import rivals
from benchmarks.tools.rivals import Stepper, stepper

FREE, NOW = 1_000_000_000, 0
RATE, EPS = 1e-3, 1e-6


class Case(NamedTuple):
    """What is measured.

    Attributes:
      make: makes the optimizer.
      floor: bytes a parameter, float32, of a step; None where matrix products decide.
    """

    make: Callable[[], Stepper]
    floor: int | None


def plain(moments: int) -> int:
    """The floor of a step without any sum."""
    return 4 * (3 + 2 * moments)


def trust_ratio(moments: int) -> int:
    """The floor where the write waits for sums of the weights and the direction."""
    return 4 * (4 + 3 * moments)


def on_sphere(moments: int) -> int:
    """The floor where the moments too wait for a sum, that of line 4."""
    return 4 * (6 + 3 * moments)


def by_autodiff(moments: int) -> int:
    """The floor of `w = c v / ||v||`, `w` written for the forward pass."""
    return 4 * (7 + 2 * moments)


def _optax(make: Callable[[], optax.GradientTransformation], floor: int | None) -> Case:
    return Case(lambda: stepper(make()), floor)


def _both_phases(
    name: str,
    make: Callable[[int], optax.GradientTransformation],
    free: int | None,
    constrained: int | None,
) -> dict[str, Case]:
    """A LAWN that is on its spheres from the first step, and one that never gets there."""
    return {
        name: _optax(lambda: make(NOW), constrained),
        f"{name}, free": _optax(lambda: make(FREE), free),
    }


def _adam() -> optax.GradientTransformation:
    return optax.adam(RATE, eps=EPS)


def _links() -> optax.GradientTransformation:
    project, rescale = lawn_optax.project_to_tangent, lawn_optax.rescale_to_norms
    return optax.chain(project(), _adam(), project(), rescale())


BASELINE = "adam"
OPTIMIZERS: dict[str, Case] = {
    "adam": _optax(_adam, plain(2)),
    **_both_phases(
        "adam_lawn", lambda n: lawn_optax.adam_lawn(RATE, n, eps=EPS), plain(2), on_sphere(2)
    ),
    "adam_lawn, links": _optax(_links, on_sphere(2)),
    **_both_phases(
        "adam_lawn, no care",
        lambda n: rivals.straightforward_lawn(_adam(), n),
        plain(2),
        on_sphere(2),
    ),
    "adam, reparametrized": Case(lambda: rivals.reparametrized(_adam()), by_autodiff(2)),
    "adamw": _optax(lambda: optax.adamw(RATE), plain(2)),
    "lamb": _optax(lambda: optax.lamb(RATE), trust_ratio(2)),
    **_both_phases(
        "lamb_lawn", lambda n: lawn_optax.lamb_lawn(RATE, n), trust_ratio(2), on_sphere(2)
    ),
    "hyperball": _optax(lambda: lawn_optax.hyperball(optax.scale_by_adam(), RATE), trust_ratio(2)),
    "sgd": _optax(lambda: optax.sgd(RATE, momentum=0.9), plain(1)),
    **_both_phases("sgd_lawn", lambda n: lawn_optax.sgd_lawn(RATE, n), plain(1), on_sphere(1)),
    "muon": _optax(lambda: optax.contrib.muon(RATE), None),
    **_both_phases("muon_lawn", lambda n: lawn_optax.lawn(optax.contrib.muon(RATE), n), None, None),
}
