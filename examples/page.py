"""A page of training curves from records: is a run flattening, and where did LAWN switch?

python -m examples.page runs/ncf.jsonl runs/quickstart.jsonl --write-to runs/page.html

Seconds. The page is one file that opens without a network; the pictures also lie beside it as PNG.
"""

import base64
import dataclasses
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import tyro

from examples.results import norms, plots, records, tables
from examples.training import command, jsonl
from examples.training.options import LATER, Options
from examples.training.traits import WITH_SWITCH

COURSE = {
    "train_loss": "training loss",
    "hr_at_10": "HR@10",
    "accuracy": "accuracy",
    "margin_p50": "median training margin",
    "flat_share": "share in the flat zone",
}
MEANING = {
    "train_loss": "falls to the end in any case: it does not say whether the model gets better",
    "hr_at_10": "what is held out; where it turns down while the loss falls, the run overfits",
    "accuracy": "what is held out; where it turns down while the loss falls, the run overfits",
    "margin_p50": "above 2.5 logits the loss of half of the examples is flat; a run that flattens"
    " rises without end",
    "flat_share": "examples with a margin of 2.5 or more: they hardly move the weights",
    "norms": "grow without end in a run that flattens, and stay where LAWN holds them; with weight"
    " decay and a large learning rate they bounce: they fall, then rise to a balance",
    "layers": "which share of the squared norm the ten largest have, and whether they move alike",
}
NORMS = 5  # The largest of the last epoch are drawn; the total is one of them.
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "img{width:100%}table{border-collapse:collapse}"
    "td,th{padding:.2rem 1rem .2rem 0;text-align:left}"
    "dt{font-weight:600}"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Draws the curves of runs beside each other."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Files of records, as the examples write them with --out; at most seven methods are drawn."""
    write_to: Path = Path("runs/page.html")
    """The page to write."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs=(): give at least one file of records, such as runs/ncf.jsonl.")
        for path in self.runs:
            if not path.exists():
                raise ValueError(f"runs={path}: no such file. Examples write one with --out.")


def main(config: Config) -> None:
    """Read the records, draw, and write the page."""
    found = [
        norms.with_total(with_last_values(record))
        for path in config.runs
        for record in jsonl.read(path, needed=("config", "curve"))
    ]
    if not found:
        raise ValueError(f"{', '.join(map(str, config.runs))}: no records. Train with --out first.")
    config.write_to.parent.mkdir(parents=True, exist_ok=True)
    config.write_to.write_text(page(found, config.write_to), encoding="utf-8")
    print(f"{len(found)} runs: {config.write_to}")


def with_last_values(record: records.Record) -> records.Record:
    """Return a record whose final values are those that it has, or the last ones of its curves."""
    last = {name: values[-1] for name, values in record["curve"].items()}
    return record | {"final": last | record.get("final", {})}


def page(found: Sequence[records.Record], out: Path) -> str:
    """Return the page, and draw its pictures beside it."""
    by_length = tables.group(found, lambda record: len(record["curve"]["train_loss"]))
    sections = [
        section(f"{epochs} epochs", runs, out.with_name(f"{out.stem}-{epochs}"))
        for epochs, runs in sorted(by_length.items())
    ]
    title = "Training curves"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style><h1>{title}</h1>{''.join(sections)}</html>\n"
    )


def section(title: str, runs: Sequence[records.Record], stem: Path) -> str:
    """Return the part of the page on runs of one length."""
    by_method = tables.group(runs, method)
    of_all = lambda name: all(name in run["curve"] for run in runs)
    course = {name: label for name, label in COURSE.items() if of_all(name)}
    largest = {name: name for name in largest_norms(runs)}
    draw = lambda panels: lambda path: plots.draw(path, {title: by_method}, panels)
    layers = lambda path: plots.draw_layers(path, by_method)
    pictures: dict[str, tuple[Callable[[Path], None], Iterable[str]]] = {
        "course": (draw(course), course.values()),
        "norms": (draw(largest), largest),
        "layers": (layers, ["shares of layers"] if set(largest) > {norms.TOTAL} else []),
    }
    pictures = {part: picture for part, picture in pictures.items() if picture[1]}
    images = [
        image(stem.with_name(f"{stem.name}-{part}.png"), *picture)
        for part, picture in pictures.items()
    ]
    explained = [(label, MEANING[name]) for name, label in course.items()]
    explained += [(name, MEANING[name]) for name in pictures if name in MEANING]
    terms = "".join(f"<dt>{html.escape(a)}<dd>{html.escape(b)}" for a, b in explained)
    return f"<h2>{title}</h2>{''.join(images)}<dl>{terms}</dl>{table(by_method, course)}"


def method(record: records.Record) -> str:
    """Return what a run is called in the legend."""
    config = record["config"]
    if "method" in config:
        return config["method"]
    switch = f", free {config['free_epochs']}" if config["optimizer"] in WITH_SWITCH else ""
    decay = f", decay {config['weight_decay']:g}" if config["weight_decay"] else ""
    schedule = f", {config['schedule']}" if "schedule" in config else ""
    late = config.get("last_decay_at", Options.last_decay_at)
    at = f" at {late:g}" if config.get("schedule") == "simple" else ""
    scale = config.get("init_scale", 1)
    start = "" if scale == 1 else f", initial weights x {scale:g}"
    peak = f", peak {config['learning_rate']:g}"
    told = {"schedule", "last_decay_at", "init_scale"} if at else {"schedule", "init_scale"}
    others = [
        f", {name.replace('_', ' ')} {config[name]}"
        for name in LATER
        if name in config and name not in told
    ]
    return f"{config['optimizer']}{peak}{decay}{switch}{schedule}{at}{start}{''.join(others)}"


def largest_norms(runs: Sequence[records.Record]) -> list[str]:
    """Return the names of the norms that all runs have and that end largest."""
    shared = set.intersection(*(set(run["curve"]) for run in runs))
    names = sorted(name for name in shared if name.startswith("norm/"))
    scalars = [name for name in names if isinstance(runs[0]["final"][name], float)]
    return sorted(scalars, key=lambda name: -runs[0]["final"][name])[:NORMS]


def image(path: Path, draw: Callable[[Path], None], shown: Iterable[str]) -> str:
    """Draw a picture, and return it as part of the page."""
    draw(path)
    encoded = base64.b64encode(path.read_bytes()).decode()
    alternative = html.escape(", ".join(shown))
    return f'<img alt="{alternative}" src="data:image/png;base64,{encoded}">'


def table(by_method: plots.Runs, course: Mapping[str, str]) -> str:
    """Return the values of the last epoch, and where LAWN switched."""
    head = "".join(f"<th>{html.escape(x)}" for x in ("", *course.values(), "switched at epoch"))
    rows = []
    for name, runs in by_method.items():
        cells = [tables.mean_and_error(tables.final(runs, x), digits=3) for x in course]
        at = [run.get("switched_at_epoch") for run in runs]
        known = [x for x in at if x is not None]
        cells.append(f"{sum(known) / len(known):.1f}" if known else "-")
        rows.append("<tr>" + "".join(f"<td>{html.escape(x)}" for x in (name, *cells)))
    return f"<table><tr>{head}{''.join(rows)}</table>"


if __name__ == "__main__":
    command.run(main, command.parser(Config, "examples.page", __doc__))
