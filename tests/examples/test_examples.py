"""Each example takes a training step, run as a user runs it."""

import json
import re

import jax
import numpy as np
import pytest

from examples import quickstart, training
from examples.tasks import identifiers, small
from examples.training.options import Options
from examples.training.traits import WITH_SWITCH
from tests.examples.toys import toy_uses

METHODS = ("Adam", "AdamW", "Adam-LAWN", "Adam-LAWN, automatic")


@pytest.mark.parametrize("longer", [(), pytest.param((2,), marks=pytest.mark.slow)])
def test_quickstart(longer, tmp_path, capsys, monkeypatch):
    """On eight made-up modules; at two lengths, on those of Python, which takes seconds to read."""
    if not longer:
        uses = toy_uses()
        load = lambda batch_size, split_seed: identifiers.make_task(
            uses, batch_size, (8, 4), split_seed
        )
        monkeypatch.setattr(identifiers, "load", load)
    quickstart.main(
        quickstart.Config(
            epochs=1,
            longer=longer,
            warmup_epochs=0,
            batch_size=10_000 if longer else 50,
            seeds=2,
            learning_rates=(1e-2,),
            weight_decays=(0.0, 0.1),
            free_epochs=(0.5,),
            tuning_seeds=2,  # As many as seeds, so that both share a program.
            picture=tmp_path / "picture.svg",
            out=tmp_path / "records.jsonl",
        )
    )
    printed = capsys.readouterr().out
    for epochs in (1, *longer):
        for method in METHODS:
            assert (
                len(re.findall(rf"^\| {epochs} +\| {method}(?: †)? +\| \d\d", printed, re.M)) == 1
            )
    assert "- Adam: peak 0.01, weight decay 0\n" in printed
    assert "- Adam-LAWN: peak 0.01, 0.5 free epochs\n" in printed
    assert "- Adam-LAWN, automatic: peak 0.01, nothing else to choose\n" in printed
    picture = (tmp_path / "picture.svg").read_text()
    for text in (*quickstart.PANELS.values(), *METHODS):
        assert f"<!-- {text} -->" in picture
    found = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert len(found) == len(METHODS) * 2 * (1 + len(longer))
    for record in found:
        lawn = {"switched_at_epoch"} if record["config"]["optimizer"] == "adam_lawn" else set()
        shared = {"config", "seed", "versions", "device", "wall_s", "curve", "final"}
        assert set(record) == shared | lawn
        assert record["seed"] < 2
        assert len(record["curve"]["hr_at_10"]) == record["config"]["epochs"]


def test_the_table_marks_runs_that_never_switched():
    curve = {"hr_at_10": [0.5]}
    final = {"margin_p50": 1.0, "train_loss": 0.2}
    switches = {"Adam": (), "Adam-LAWN": (0.5, 0.5), "Adam-LAWN, automatic": (0.5, None)}
    found = [
        {"config": {"epochs": 15, "method": method}, "curve": curve, "final": final}
        | ({"switched_at_epoch": at[seed]} if at else {})
        for method, at in switches.items()
        for seed in (0, 1)
    ]
    *rows, _, note = quickstart.score_table(found).splitlines()
    cells = [row.split("|")[2].strip() for row in rows[2:]]
    assert cells == ["Adam", "Adam-LAWN", "Adam-LAWN, automatic †"]
    assert note.startswith("† LAWN never began")
    assert note.endswith(": Adam-LAWN, automatic at 15 epochs, 1 of 2 runs.")
    assert "†" not in quickstart.score_table(found[:4])


def test_each_setting_has_the_mean_of_its_own_tuning_seeds(monkeypatch):
    """Three settings of two seeds, trained four, and then two, at a time."""
    begun = []

    def train(task, options, *, hyperparameters, seeds, **others):
        begun.append(len(seeds))
        score = hyperparameters.learning_rate + np.array(seeds) - quickstart.TUNING_SEED
        of = lambda x: np.stack([0 * x, x], axis=1)
        curve = {"validation_hr_at_10": of(score), "validation_ndcg_at_10": of(2 * score)}
        return training.Result(None, curve, 0.0)

    monkeypatch.setattr(training, "train", train)
    settings = [Options(learning_rate=rate) for rate in (10.0, 20.0, 30.0)]
    trials = quickstart.try_out(None, quickstart.Config(seeds=4, tuning_seeds=2), settings)
    assert begun == [4, 2]
    assert trials == [
        quickstart.Trial(o, r + 0.5, 2 * r + 1) for o, r in zip(settings, (10, 20, 30), strict=True)
    ]


def test_the_best_setting_has_the_highest_score_and_of_equals_the_highest_ndcg():
    options = [Options(learning_rate=rate) for rate in (1e-3, 2e-3, 3e-3, 4e-3)]
    scores = [(0.4, 0.9), (0.5, 0.2), (0.5, 0.3), (float("nan"), float("nan"))]
    trials = [quickstart.Trial(o, *s) for o, s in zip(options, scores, strict=True)]
    assert quickstart.best(trials) is options[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tuning_seeds": 0}, r"tuning_seeds=0 must be at least 1"),
        ({"weight_decays": (0.1,)}, r"weight_decays=\(0.1,\) must hold 0"),
        ({"epochs": 20, "longer": (60, 20)}, r"longer=\[20\] must be more than epochs=20"),
    ],
)
def test_a_quickstart_that_cannot_be_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        quickstart.Config(**options)


@pytest.mark.parametrize(
    "optimizer",
    [
        *("adam_lawn", "lamb_lawn", "hyperball", "muon_h"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                *("sgd", "adam", "lamb", "lamb_plus", "muon", "sgd_lawn", "adam_h", "adamp", "cpr"),
            )
        ),
    ],
)
def test_every_optimizer_learns_and_lawn_holds_its_norms(optimizer):
    task = small.load("digits", 250)
    rate = 0.05 if optimizer.startswith("sgd") else 0.01
    free = {"free_epochs": 1.0} if optimizer in WITH_SWITCH else {}
    options = Options(optimizer=optimizer, learning_rate=rate, epochs=4, seeds=1, **free)
    curve = training.train(task, options).curve
    assert curve["accuracy"][0, -1] > 0.6
    assert curve["train_loss"][0, -1] < curve["train_loss"][0, 0]
    if free:
        norms = curve["norm/hidden/1/kernel"][0]
        np.testing.assert_allclose(norms[1:], norms[0], rtol=3e-6)
        assert curve["constrained_epochs"][0, -1] == 3


@pytest.mark.parametrize("backend", ["cpu", "gpu"])  # mapped on one, vmapped on the other
def test_seeds_train_side_by_side_as_they_would_alone(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    jax.clear_caches()  # What was compiled for the other backend.
    task = small.load("digits", 250, noise=0.2)
    options = Options(epochs=2, seeds=2, free_epochs=0.5, learning_rate=0.01)
    together = training.train(task, options).curve
    alone = training.train(task, options, seeds=[1]).curve
    for name in ("train_loss", "margin_p50", "norm/last/kernel"):
        np.testing.assert_allclose(together[name][1], alone[name][0], rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, r"epochs=0 must be at least 1"),
        ({"warmup_epochs": 30.0}, r"warmup_epochs=30.0 must lie between 0 and epochs=20"),
        ({"optimizer": "adamm"}, r"optimizer='adamm' must be one of"),
        ({"weight_decay": 0.1}, r"weight_decay=0.1 with optimizer='adam_lawn'"),
        ({"checkpoint_every": 0}, r"checkpoint_every=0 must be at least 1"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)
