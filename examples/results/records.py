"""Records: one JSON line per seed, with all that is needed to trust and to repeat it.

{"config": {...}, "seed": 0, "versions": {...}, "device": "...", "wall_s": 1.0,
 "curve": {"train_loss": [...], ...}, "final": {"train_loss": ..., ...},
 "switched_at_epoch": 4.0}    of LAWN: null where it never began to constrain
"""

import json
import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import lawn_optax
from examples.training import Result, jsonl

Record = dict[str, Any]


def make_records(config: Mapping[str, Any], seeds: Sequence[int], result: Result) -> list[Record]:
    """Make a record for each run of a result.

    Args:
      config: what the runs share, all but the seed.
      seeds: the seed of each run.
      result: from `training.train`; `wall_s` is of all its runs together.
    """
    kind = jax.devices()[0].device_kind
    count = len(jax.tree.leaves(result.state)[0].sharding.device_set)
    shared = {
        "versions": versions(),
        "device": f"{count} x {kind}" if count > 1 else kind,
        "wall_s": round(result.wall_s, 3),
    }
    records = []
    for run, seed in enumerate(seeds):
        curve = {name: [_number(x) for x in rows[run]] for name, rows in result.curve.items()}
        final = {name: values[-1] for name, values in curve.items()}
        record = {"config": config, "seed": seed, **shared, "curve": curve, "final": final}
        if constrained := curve.get("constrained_epochs"):
            record["switched_at_epoch"] = switched_at(constrained)
        records.append(json.loads(json.dumps(record, default=str)))
    return records


def switched_at(constrained_epochs: Sequence[float | None]) -> float | None:
    """Return the epoch of LAWN's switch; None where it never began to constrain."""
    last = constrained_epochs[-1]
    return _number(len(constrained_epochs) - last) if last else None


def append_new(path: Path, records: Sequence[Record]) -> None:
    """Append the records that a file lacks, and say how many it has already."""
    new = missing(path, records)
    if there := len(records) - len(new):
        print(f"{path} has {there} of its records: they are not added.")
    append_records(path, new)


def append_records(path: Path, records: Sequence[Record]) -> None:
    """Append a line for each record, all in one write; make the file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ended = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        lines = "".join(json.dumps(record) + "\n" for record in records)
        file.write(lines if ended else f"\n{lines}")


def missing(path: Path, records: Sequence[Record]) -> list[Record]:
    """Return the records that a file lacks; another has the same config, seed and curve."""
    what = lambda record: [record.get(name) for name in ("config", "seed", "curve")]
    there = [what(record) for record in read_records(path)]
    return [record for record in records if what(record) not in there]


def read_records(path: Path) -> list[Record]:
    """Return the records of a file, oldest first; none where there is no file."""
    return jsonl.read(path) if path.exists() else []


def versions() -> dict[str, str | None]:
    """Return the versions of what computes, and the commit of this checkout, None without one."""
    of_packages = {name: metadata.version(name) for name in ("jax", "optax", "flax", "numpy")}
    return {
        "lawn_optax": lawn_optax.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **of_packages,
    }


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _number(x: Any) -> float | None:
    """Return a JSON number with the digits of a float32; None for what JSON cannot say."""
    return float(f"{x:.7g}") if math.isfinite(x) else None
