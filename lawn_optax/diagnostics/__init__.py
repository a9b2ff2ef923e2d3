"""Diagnostics of training with constrained norms: norms, drift, angles, flatness, escape.

Results about layers are flat dicts from a leaf's path, such as `"dense/kernel"`, to an array with
one number per norm: ready for a log.
"""

from lawn_optax.diagnostics._curvature import escape_value, sharpness
from lawn_optax.diagnostics._layers import (
    angular_step,
    flat_zone_share,
    gradient_cosine,
    norm_drift,
    step_report,
    weight_norms,
)
from lawn_optax.diagnostics._states import captured_norms, free_steps, is_constrained

__all__ = [
    "angular_step",
    "captured_norms",
    "escape_value",
    "flat_zone_share",
    "free_steps",
    "gradient_cosine",
    "is_constrained",
    "norm_drift",
    "sharpness",
    "step_report",
    "weight_norms",
]
