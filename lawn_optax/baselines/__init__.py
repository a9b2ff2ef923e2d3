"""Baselines that LAWN is compared with and that Optax does not have."""

from lawn_optax.baselines._abel import AbelState, abel
from lawn_optax.baselines._adamp import adamp
from lawn_optax.baselines._bounded_weight_norm import Reparametrization, bounded_weight_norm
from lawn_optax.baselines._cpr import CprState, cpr

__all__ = [
    "AbelState",
    "CprState",
    "Reparametrization",
    "abel",
    "adamp",
    "bounded_weight_norm",
    "cpr",
]
