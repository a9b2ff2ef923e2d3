"""Lists the searches in which optimizers are tuned as hard as each other."""

import dataclasses
from typing import Any

from benchmarks.paper.catalog import short
from benchmarks.paper.problems import ON_SMALL, UNSEEN, Problem
from benchmarks.paper.spaces import Range, Space
from benchmarks.paper.studies import AnyConfig, Search
from examples import lm, small
from examples.training.traits import OptimizerName

Setting = tuple[AnyConfig, Space]
DECAY = Range(1e-2, 10)
RELATIVE = Range(1e-3, 1e-1)  # Learning rates of steps that are shares of the norms.


def tuned(base: AnyConfig, optimizer: OptimizerName, rate: Range, **ranges: Range) -> Setting:
    """Return a setting, and what of it is drawn from where."""
    setting: Any = dataclasses.replace(base, optimizer=optimizer)
    return setting, {"learning_rate": rate, **ranges}


def free_phase(base: AnyConfig) -> Range:
    """Return the lengths of free phases that are tried, in epochs: up to half of them all."""
    return Range(base.epochs / 80, base.epochs / 2)


def adamw_and_lawn(base: AnyConfig, rate: Range, decay: Range = DECAY) -> dict[str, Setting]:
    """Return Adam with weight decay, and Adam-LAWN with a free phase to tune and without."""
    automatic: Any = dataclasses.replace(base, free_epochs="flattening")
    return {
        "AdamW": tuned(base, "adamw", rate, weight_decay=decay),
        "Adam-LAWN": tuned(base, "adam_lawn", rate, free_epochs=free_phase(base)),
        "Adam-LAWN, automatic": tuned(automatic, "adam_lawn", rate),
    }


def others(base: AnyConfig, rate: Range, decay: Range = DECAY) -> dict[str, Setting]:
    """Return the other optimizers with second moments, or with orthogonal steps.

    CPR's bounds are set at the inflection of the norms, its form with nothing to tune.
    """
    return {
        "LAMB": tuned(base, "lamb", RELATIVE, weight_decay=decay),
        "LAMB-LAWN": tuned(base, "lamb_lawn", RELATIVE, free_epochs=free_phase(base)),
        "Muon": tuned(base, "muon", rate, weight_decay=decay),
        "AdamH": tuned(base, "adam_h", RELATIVE, rest_learning_rate=rate),
        "MuonH": tuned(base, "muon_h", RELATIVE, rest_learning_rate=rate),
        "AdamP": tuned(base, "adamp", rate, weight_decay=decay),
        "CPR": tuned(base, "cpr", rate),
    }


def with_momentum(base: AnyConfig) -> dict[str, Setting]:
    """Return the optimizers without a second moment, which have L2 regularisation."""
    return {
        "Nesterov": tuned(base, "nesterov", Range(1e-2, 3), weight_decay=Range(1e-6, 1e-2)),
        "LARS": tuned(base, "lars", Range(0.1, 30), weight_decay=Range(1e-6, 1e-2)),
    }


MOVIELENS = {size: dataclasses.replace(short(size, 40), validate=True) for size in ("10k", "100k")}
PEAK = Range(1e-3, 1e-1)
AS_HARD = tuple(
    Search(
        name=f"as-hard-{size}",
        what=f"movielens-100k, batch size {base.batch_size:,}, {base.epochs} epochs",
        base=base,
        spaces=adamw_and_lawn(base, PEAK),
    )
    for size, base in MOVIELENS.items()
)

# Where a free phase gained two points or more over Adam; and sums, on which none had been run.
FLATTENING = {"digits-noisy": "digits, 20% wrong labels"} | {
    name: name for name in ("parity", "lines", "mnist1d", "addition")
}
AS_HARD_SMALL = tuple(
    Search(
        name=f"as-hard-{name}",
        what=problem,
        base=(base := {**ON_SMALL, **UNSEEN}[Problem(problem, "all")]),
        spaces=adamw_and_lawn(base, PEAK),
    )
    for name, problem in FLATTENING.items()
)

# The paper gives Adam an eps of 1e-8 and all other adaptive optimizers 1e-6, as do the runs here.
LAWNS_EPS = Search(
    name="adamw-eps",
    what=AS_HARD[0].what,
    base=AS_HARD[0].base,
    spaces={
        "AdamW, eps 1e-6": (
            dataclasses.replace(AS_HARD[0].base, optimizer="adamw", adam_eps=1e-6),
            AS_HARD[0].spaces["AdamW"][1],
        )
    },
    searches=1,
)


def contest(
    name: str, what: str, base: AnyConfig, peak: Range, searches: int, decay: Range = DECAY
) -> Search:
    """Return a search of all optimizers, with few trials each."""
    spaces = adamw_and_lawn(base, peak, decay) | others(base, peak, decay) | with_momentum(base)
    return Search(
        name=f"all-{name}", what=what, base=base, spaces=spaces, trials=8, searches=searches
    )


# Transformers on Python's standard library. The first takes 40 s on a CPU core; the other, of five
# million weights, is for a GPU: seconds per run there, and half an hour on two CPU cores.
SMALL_LANGUAGE_MODEL = lm.Config(
    width=64,
    depth=2,
    length=64,
    batch_size=16,
    epochs=2,
    epoch_tokens=250_000,
)
LANGUAGE_MODEL = lm.Config(
    width=256,
    depth=6,
    heads=8,
    length=256,
    batch_size=64,
    dtype="bfloat16",
    epochs=5,
    epoch_tokens=2_000_000,
)
_PEAK, _DECAY = Range(3e-4, 3e-2), Range(1e-2, 3)

ALL = (
    contest("digits", "digits, 40 epochs", small.Config(), Range(3e-4, 3e-2), searches=2),
    contest(
        "digits-noisy",
        "digits with a fifth of the training labels wrong, 40 epochs",
        small.Config(noise=0.2),
        Range(3e-4, 3e-2),
        searches=2,
    ),
    # Of AdamW and Adam-LAWN it has the first settings of as-hard-10k.
    contest("10k", AS_HARD[0].what, MOVIELENS["10k"], PEAK, searches=1),
    contest(
        "lm",
        "Python's standard library, byte by byte, 500,000 tokens, 130,000 weights",
        SMALL_LANGUAGE_MODEL,
        Range(1e-3, 1e-1),
        searches=1,
        decay=_DECAY,
    ),
)

LM_AS_HARD = Search(
    name="lm-as-hard",
    what="Python's standard library, byte by byte, 10 million tokens, 5 million weights",
    base=LANGUAGE_MODEL,
    spaces=adamw_and_lawn(LANGUAGE_MODEL, _PEAK, _DECAY) | others(LANGUAGE_MODEL, _PEAK, _DECAY),
    trials=8,
    searches=1,
)

SEARCHES = {search.name: search for search in (*AS_HARD, *AS_HARD_SMALL, *ALL, LM_AS_HARD)}
