"""Keep the weight norms of a network where you want them: LAWN for any Optax optimizer.

wrap any optimizer   lawn
when to constrain    at_step, at_epoch
                     at_flattening, at_gradient_rise, at_median_margin, hold_median_margin
links of a chain     project_to_tangent, rescale_to_norms, scale_by_capped_trust_ratio
ready made           adam_lawn, lamb_lawn, sgd_lawn, lamb_plus
from the start       hyperball, adam_h, muon_h
other weights        scale_to_norms, scale_to_margin
which leaves         only_paths, except_paths, describe, describe_groups
modules              schedules, baselines, losses, metrics, diagnostics

>>> import optax, lawn_optax
>>> optimizer = lawn_optax.lawn(optax.adam(1e-3), switch=2000)   # 2000 free updates

Modules, each importing only from lines below its own:

    _describe                                        what is constrained, as a table
    _presets         _hyperball_presets              diagnostics     baselines
    _weights         weights that are not an optimizer's iterates
    _lawn            _hyperball      Algorithm 1; norms fixed from the start
    _orthogonalize   Muon's direction
    _transforms      the links of a chain
    _groups          which leaf goes to which optimizer
    _selection       from arguments to spheres: which leaves, over which axes
    _spheres         inner products and moves on trees
    _masks           which leaves
    _gradient_switches               _margin_switches
    _switches        when to constrain               schedules       losses        metrics
    _checks          every refusal and its text
    _paths           trees by path
    _kernels         sums, coefficients and moves of many leaves
    _exchange        one exchange between devices for all sums
    _geometry        from inner products to the two numbers of a move
"""

from lawn_optax import baselines, diagnostics, losses, metrics, schedules
from lawn_optax._describe import (
    GroupSummary,
    LeafGroup,
    LeafSummary,
    Summary,
    describe,
    describe_groups,
)
from lawn_optax._gradient_switches import (
    FlatteningState,
    GradientRiseState,
    at_flattening,
    at_gradient_rise,
)
from lawn_optax._hyperball import HyperballState, hyperball
from lawn_optax._hyperball_presets import adam_h, muon_h
from lawn_optax._lawn import LawnState, lawn
from lawn_optax._margin_switches import (
    HoldMedianMarginState,
    MedianMarginState,
    at_median_margin,
    hold_median_margin,
)
from lawn_optax._masks import except_paths, only_paths
from lawn_optax._presets import adam_lawn, lamb_lawn, lamb_plus, sgd_lawn
from lawn_optax._switches import NormsOfState, Switch, at_epoch, at_step
from lawn_optax._transforms import (
    RescaleToNormsState,
    project_to_tangent,
    rescale_to_norms,
    scale_by_capped_trust_ratio,
)
from lawn_optax._weights import scale_to_margin, scale_to_norms

__version__ = "0.2.0.dev0"

__all__ = [
    "FlatteningState",
    "GradientRiseState",
    "GroupSummary",
    "HoldMedianMarginState",
    "HyperballState",
    "LawnState",
    "LeafGroup",
    "LeafSummary",
    "MedianMarginState",
    "NormsOfState",
    "RescaleToNormsState",
    "Summary",
    "Switch",
    "adam_h",
    "adam_lawn",
    "at_epoch",
    "at_flattening",
    "at_gradient_rise",
    "at_median_margin",
    "at_step",
    "baselines",
    "describe",
    "describe_groups",
    "diagnostics",
    "except_paths",
    "hold_median_margin",
    "hyperball",
    "lamb_lawn",
    "lamb_plus",
    "lawn",
    "losses",
    "metrics",
    "muon_h",
    "only_paths",
    "project_to_tangent",
    "rescale_to_norms",
    "scale_by_capped_trust_ratio",
    "scale_to_margin",
    "scale_to_norms",
    "schedules",
    "sgd_lawn",
]
