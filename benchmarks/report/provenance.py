"""Says where the runs of a table come from."""

from collections.abc import Sequence

from benchmarks.paper import studies
from examples.results.records import Record


def provenance(runs: Sequence[Record]) -> str:
    """Say how many runs there are, with which seeds, on what and from which commits."""
    tuning = sum(run["seed"] == studies.TUNING_SEED for run in runs)
    what = f"{len(runs)} runs"
    if tuning:
        what = f"{tuning} runs of one seed to tune, {len(runs) - tuning} of others to report"
    return f"{what}, {origin(runs)}"


def origin(runs: Sequence[Record]) -> str:
    """Say on what runs were made and from which commits."""
    every = lambda values: ", ".join(sorted(set(values)))
    devices = every(run["device"] for run in runs)
    commits = every(run["versions"]["commit"] or "unknown" for run in runs)
    return f"on {devices}, at commit {commits}"
