"""A page of curves: one file, its pictures beside it."""

import json
import re

import pytest

from examples import page
from examples.results import norms, records
from examples.training.options import Options


def record(method, optimizer, epochs, seed, switched=None):
    curve = {
        "train_loss": [1.0 / (e + 1) for e in range(epochs)],
        "hr_at_10": [0.1 * e for e in range(epochs)],
        "margin_p50": [float(e) for e in range(epochs)],
        "flat_share": [0.5] * epochs,
        "norm/kernel": [2.0] * epochs,
        "norm/other": [1.0] * epochs,
    }
    if switched is not None:
        curve["constrained_epochs"] = [max(0.0, e + 1 - switched) for e in range(epochs)]
    config = {"optimizer": optimizer, "learning_rate": 0.01, "weight_decay": 0.0}
    config |= {"free_epochs": "rise"} | ({"method": method} if method else {})
    final = {name: values[-1] for name, values in curve.items()}
    found = {"config": config, "seed": seed, "curve": curve, "final": final}
    return found | ({"switched_at_epoch": switched} if switched is not None else {})


RUNS = [
    *(record("Adam", "adam", 4, seed) for seed in (0, 1)),
    *(record(None, "adam_lawn", 4, seed, switched=2.0) for seed in (0, 1)),
    record("Adam", "adam", 8, 0),
]


def test_a_page_is_one_file_with_a_section_per_length(tmp_path, capsys):
    records.append_records(tmp_path / "runs.jsonl", RUNS)
    out = tmp_path / "out" / "page.html"
    page.main(page.Config(runs=(tmp_path / "runs.jsonl",), write_to=out))
    text = out.read_text()
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["4 epochs", "8 epochs"]
    assert "adam_lawn, peak 0.01, free rise<td>0.250 ± 0.000" in text
    assert "<td>2.0<" in text  # where it switched
    assert not re.findall(r'(?:src|href)="(?!data:)', text)  # nothing from a network
    pictures = sorted(path.name for path in out.parent.glob("*.png"))
    assert pictures == [
        f"page-{epochs}-{part}.png" for epochs in (4, 8) for part in ("course", "layers", "norms")
    ]
    assert "5 runs" in capsys.readouterr().out


def test_runs_of_two_examples_share_a_page(tmp_path):
    """What only some of them measure is not drawn, whichever comes first."""
    other = {name: {**RUNS[0][name]} for name in ("curve", "final")}
    for part in other.values():
        part["other_metric"] = part.pop("hr_at_10", None)
    for order in ([*RUNS, RUNS[0] | other], [RUNS[0] | other, *RUNS]):
        path = tmp_path / "both.jsonl"
        path.unlink(missing_ok=True)
        records.append_records(path, order)
        page.main(page.Config(runs=(path,), write_to=tmp_path / "page.html"))


@pytest.mark.parametrize("line", ['{"a": 1}', "[1]", '{"config":', '{"config": {}}'])
def test_what_is_no_record_of_a_run_is_refused_in_one_line(line, tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(ValueError, match="is no file of records, by its line 1"):
        page.main(page.Config(runs=(path,), write_to=tmp_path / "page.html"))


def test_a_record_of_ones_own_loop_needs_a_name_and_curves(tmp_path):
    curve = {"train_loss": [0.7, 0.4], "margin_p50": [0.5, 1.9], "norm/kernel": [2.0, 3.0]}
    runs = [
        {"config": {"method": "my run"}, "curve": curve},
        {"config": {"method": "mine"}, "curve": curve, "final": {"norm/another": 3.0}},
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, runs)))
    page.main(page.Config(runs=(file,), write_to=tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert "my run" in text
    assert "0.400" in text


def test_the_largest_norms_are_drawn():
    assert page.largest_norms(RUNS) == ["norm/kernel", "norm/other"]
    assert page.largest_norms([*map(norms.with_total, RUNS)])[0] == "norm/total"


def test_runs_are_told_apart_by_schedule_and_start():
    config = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4}
    config |= {"schedule": "simple", "last_decay_at": 0.5, "init_scale": 0.25}
    assert page.method({"config": config}) == (
        "sgd, peak 0.1, decay 0.0005, simple at 0.5, initial weights x 0.25"
    )
    del config["last_decay_at"], config["init_scale"]  # As records have defaults.
    assert page.method({"config": config}) == "sgd, peak 0.1, decay 0.0005, simple at 0.85"
    config |= {"schedule": "abel"}
    assert page.method({"config": config}) == "sgd, peak 0.1, decay 0.0005, abel"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"optimizer": "sgd", "momentum": 0.5}, "sgd, peak 0.001, momentum 0.5"),
        ({"optimizer": "sgd", "bias_optimizer": "adam"}, "sgd, peak 0.001, bias optimizer adam"),
        (
            {"optimizer": "sgd", "schedule": "abel", "last_decay_at": 0.5},
            "sgd, peak 0.001, abel, last decay at 0.5",
        ),
        (
            {"free_epochs": 2.0, "norms_scale": 0.5},
            "adam_lawn, peak 0.001, free 2.0, norms scale 0.5",
        ),
    ],
)
def test_runs_are_told_apart_by_what_is_not_at_its_default(given, told):
    assert page.method({"config": Options(**given).config()}) == told


def test_files_without_records_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match=r"empty.jsonl: no records"):
        page.main(page.Config(runs=(tmp_path / "empty.jsonl",), write_to=tmp_path / "page.html"))
    with pytest.raises(ValueError, match="at least one file"):
        page.Config(runs=())
    with pytest.raises(
        ValueError, match=r"none.jsonl: no such file. Examples write one with --out"
    ):
        page.Config(runs=(tmp_path / "none.jsonl",))
