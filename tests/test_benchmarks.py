"""Benchmarks: the trees are those of the published models, and a measurement runs."""

import json
import math

import pytest

from benchmarks import overhead, report, trees


@pytest.mark.parametrize(
    ("tree", "leaves", "parameters"),
    [
        ("ncf", 10, 9746 * 128 + 256 * 257 + 257 * 128 + 129 * 64 + 65),
        ("vgg19", 66, 20_040_522),
        ("resnet50", 161, 25_557_032),  # as published for torchvision's
        ("block", 1, 8 * 4096 * 4096),
    ],
)
def test_trees_have_the_published_sizes(tree, leaves, parameters):
    shapes = trees.TREES[tree]()
    assert len(shapes) == leaves
    assert sum(map(math.prod, shapes.values())) == parameters


def test_overhead_prints_and_records(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(trees.TREES, "ncf", lambda: trees.ncf(users=30, items=20))
    out = tmp_path / "records" / "overhead.jsonl"
    overhead.main(
        overhead.Config(trees=("ncf",), optimizers=("adam_lawn",), windows=2, steps=2, out=out)
    )
    assert "| adam_lawn |" in capsys.readouterr().out
    adam, lawn = map(json.loads, out.read_text().splitlines())
    assert (adam["optimizer"], lawn["optimizer"]) == ("adam", "adam_lawn")
    assert adam["time"] == 1
    assert lawn["bytes"] > adam["bytes"] > 0
    assert lawn["versions"]["jax"]


def test_overhead_refuses_unknown_names():
    with pytest.raises(ValueError, match=r"trees holds 'oak': choose from block, ncf"):
        overhead.Config(trees=("oak",))


def test_the_readme_shows_what_the_records_say():
    report.main(report.Config(check=True))


def test_a_section_that_is_missing_is_named():
    with pytest.raises(ValueError, match=r"no section <!-- table -->"):
        report.fill("text", "table", "body")
