"""Mistakes that a newcomer makes: a short message, exit code 2; and what a defect shows."""

import logging
import re
import sys
from pathlib import Path
from typing import get_args

import pytest

from examples import cifar, imagenet, lm, ncf, quickstart, small, training
from examples.results import records
from examples.tasks.recommendation import ranking
from examples.training import command, switching
from examples.training.options import Options
from examples.training.traits import SwitchName
from tests.examples.toys import toy_interactions


def run(monkeypatch, module, arguments):
    """Runs a command as a shell does; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["python", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command.run(module.main, command.parser(module.Config, module.__name__, module.__doc__))
    return stopped.value.code


MISTAKES = {
    "an unknown flag": (
        ncf,
        ["--epoch", "3"],
        "options: --epoch, 3. Perhaps you meant --decay-epochs or --epochs",
    ),
    "a word for a number": (ncf, ["--epochs", "many"], "--epochs: invalid literal for int()"),
    "a word for a number or a name": (
        ncf,
        ["--free-epochs", "soon"],
        "--free-epochs: no type matching FLOAT|{flattening,rise,hold, auto} could be instantiated"
        " from ['soon'].\n",
    ),
    "a negative batch size": (ncf, ["--batch-size", "-1"], "batch_size=-1 must be at least 1"),
    "an unknown optimizer": (ncf, ["--optimizer", "adamlawn"], "adamlawn"),
    "a warm-up longer than the run": (ncf, ["--epochs", "3"], "warmup_epochs=10.0 must lie"),
    "norms of a later epoch": (
        ncf,
        ["--free-epochs", "2", "--norms-of", "3"],
        "norms_of=3.0 must be an epoch from 0 to free_epochs=2.0",
    ),
    "decay on fixed norms": (
        ncf,
        ["--weight-decay", "0.1"],
        "norms that are fixed or bounded have no decay",
    ),
    "a folder without data": (ncf, ["--data-dir", "TMP"], "no file of movielens-100k in"),
    "a broken file": (ncf, ["--data-dir", "BROKEN"], "u.data"),
    "an output of other lines": (
        ncf,
        ["--out", "BROKEN/u.data"],
        "no file of records, by its line 1",
    ),
    "a negative gamma": (ncf, ["--gamma", "-1"], "gamma=-1.0 must be at least 0"),
    "an output in a file": (ncf, ["--out", "BROKEN/u.data/x.jsonl"], "cannot be written"),
    "images that are not there": (cifar, ["--data-dir", "TMP"], "cifar10"),
    "no text": (lm, ["--data-dir", "TMP/none"], "none is not there: give a file or a folder"),
    "a width that heads do not share": (lm, ["--width", "100"], "must be a multiple of 8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_short(mistake, monkeypatch, tmp_path, capsys):
    module, arguments, says = MISTAKES[mistake]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "u.data").write_text("1\t2\tthree\n")
    dataset = {ncf: ["--dataset", "movielens-100k"], cifar: ["--dataset", "cifar10"], lm: []}
    places = {"TMP": str(tmp_path), "BROKEN": str(tmp_path / "broken")}
    filled = [
        a.replace("BROKEN", places["BROKEN"]).replace("TMP", places["TMP"]) for a in arguments
    ]
    assert run(monkeypatch, module, [*dataset[module], *filled]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1


def test_an_unknown_option_is_told_beside_a_missing_one(monkeypatch, capsys):
    assert run(monkeypatch, ncf, ["--epoch", "3"]) == 2
    error = capsys.readouterr().err
    assert "--dataset {movielens-100k," in error
    assert "Unrecognized options: --epoch 3" in error
    assert error.count("\n") == 1


def test_a_setting_that_is_not_there_is_told_in_short(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["python"])
    with pytest.raises(SystemExit, match="2"):
        command.run(imagenet.main, imagenet.read_command_line)
    error = capsys.readouterr().err
    assert error.startswith("error: Expected one of {sgd-256, adam-256, ")
    assert error.count("\n") == 1


IN_ORDER = [
    *("dataset", "data-dir", "epochs", "optimizer", "learning-rate", "learning-rates"),
    *("free-epochs", "model", "tower", "schedule", "b1", "seeds", "out", "checkpoint-dir"),
    *("distributed", "mesh.data"),
]


@pytest.mark.parametrize("module", [ncf, cifar, imagenet, lm, quickstart])
def test_help_goes_from_the_data_to_the_devices(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["python", *["adam-256"][: module is imagenet], "--help"])
    read = getattr(module, "read_command_line", None)
    with pytest.raises(SystemExit, match="0"):
        command.run(module.main, read or command.parser(module.Config, module.__name__, None))
    out, error = capsys.readouterr()
    assert not error
    listed = re.findall(r"^\W*--(\S+)", out, re.M)
    order = [name.rstrip(",") for name in listed if name.rstrip(",") in IN_ORDER]
    assert order == sorted(order, key=IN_ORDER.index)
    assert {"epochs", "free-epochs", "out", "mesh.data"} <= set(order)


def missing_package(config):
    raise ModuleNotFoundError("No module named 'tensorboardX'")


def no_network(config):
    raise ConnectionError("files.grouplens.org: timed out")


@pytest.mark.parametrize(
    ("main", "says"),
    [(missing_package, 'pip install -e ".[examples]"'), (no_network, "timed out")],
)
def test_the_installation_and_the_network_are_told_in_one_line(main, says, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.run(main, lambda: None)
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_tilde_that_the_shell_leaves_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = []
    command.run(given.append, lambda: small.Config(out=Path("~/runs/x.jsonl")))
    assert given == [small.Config(out=tmp_path / "runs" / "x.jsonl")]
    assert (tmp_path / "runs").is_dir()


def test_a_defect_shows_its_traceback():
    def main(config):
        return [].index(config)

    with pytest.raises(ValueError, match="not in list"):
        command.run(main, lambda: None)


def test_warnings_are_sentences_and_logging_is_left_as_it_was(capsys):
    logger = logging.getLogger("examples")
    before = logger.propagate, logger.handlers
    command.run(lambda config: logging.getLogger("examples.any").warning("One."), lambda: None)
    assert capsys.readouterr().err == "One.\n"
    assert (logger.propagate, logger.handlers) == before


def train(**options):
    """Trains for two epochs."""
    task = ranking.make_task(toy_interactions(), 20, (8, 4), None)
    return training.train(task, Options(epochs=2, warmup_epochs=0, seeds=1, **options))


def test_a_run_that_never_switches_says_so_before_and_after(capsys):
    results = []
    command.run(lambda config: results.append(train(free_epochs=9.0)), lambda: None)
    before, after = capsys.readouterr().err.strip().splitlines()
    assert before == (
        "free_epochs=9 with epochs=2: adam_lawn trains freely to the end, and LAWN never begins."
    )
    assert after.startswith("LAWN never began in 1 of 1 run(s)")
    (record,) = records.make_records({}, [0], results[0])
    assert record["switched_at_epoch"] is None
    (record,) = records.make_records({}, [0], train(free_epochs=0.5))
    assert record["switched_at_epoch"] == pytest.approx(0.5, abs=0.5)


def test_the_table_of_switches_has_exactly_their_names():
    assert {*switching.SWITCHES} == {*get_args(SwitchName)}


@pytest.mark.parametrize(
    "switch",
    [
        "flattening",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("rise", "hold", "auto")),
    ],
)
def test_an_automatic_switch_that_did_not_come_is_told_after(switch, capsys):
    command.run(lambda config: train(free_epochs=switch, learning_rate=0.0), lambda: None)
    told = capsys.readouterr().err
    assert told.startswith(
        f"LAWN never began in 1 of 1 run(s) of adam_lawn with free_epochs={switch}"
    )
    assert switching.SWITCHES[switch].unreached in told


def test_of_a_grid_the_free_epochs_that_are_too_many_are_named(caplog):
    options = Options(epochs=3, seeds=4)
    grid = options.hyperparameters()._replace(free_epochs=[1.0, 3.0, 4.5, 3.0])
    switching.warn_before(options, grid)
    (record,) = caplog.records
    assert record.message.startswith("free_epochs=3 4.5 with epochs=3")


def test_free_epochs_without_a_switch_are_told(caplog):
    options = Options(optimizer="adam", free_epochs=1.0)
    switching.warn_before(options, options.hyperparameters())
    (record,) = caplog.records
    assert record.message == (
        "free_epochs=1 is not used: adam has no switch, its twin with _lawn in its name has."
    )


def test_records_of_the_same_run_are_added_once(tmp_path, capsys):
    found = records.make_records({"example": "toy"}, [0], train())
    for _ in range(2):
        records.append_new(tmp_path / "runs.jsonl", found)
    assert len(records.read_records(tmp_path / "runs.jsonl")) == 1
    assert capsys.readouterr().out == (
        f"{tmp_path}/runs.jsonl has 1 of its records: they are not added.\n"
    )
    records.append_new(tmp_path / "runs.jsonl", [found[0] | {"seed": 1}])
    assert len(records.read_records(tmp_path / "runs.jsonl")) == 2


def test_only_optimizers_that_have_a_twin_are_told_of_one(caplog):
    options = Options(optimizer="muon", free_epochs="rise")
    switching.warn_before(options, options.hyperparameters())
    (record,) = caplog.records
    assert record.message == (
        "free_epochs=rise is not used: muon has no switch,"
        " adam_lawn and lamb_lawn and sgd_lawn have."
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1}\n', "by its line 1 (it has no 'config')"),
        ('{"config": {}}\n[1]\n', "by its line 2 ("),
        ('{"config": {}}\n\n', "by its line 2 (Expecting value"),
    ],
)
def test_a_file_of_other_objects_is_refused_before_training(text, said, tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)):
        command.check_outputs(Options(out=path))


def test_a_line_without_its_end_is_ended_before_the_next(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"config": {"a": 1}, "seed": 0, "curve": {}}')
    records.append_new(path, [{"config": {"a": 2}, "seed": 0, "curve": {}}])
    assert [record["config"]["a"] for record in records.read_records(path)] == [1, 2]


@pytest.mark.parametrize("name", ["curves.foo", "folder.png", "curves"])
def test_a_picture_that_cannot_be_drawn_is_refused_before_training(name, tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"picture=.* must end in one of .png"):
        command.check_outputs(quickstart.Config(picture=tmp_path / name))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: quickstart.Config(free_epochs=()), "free_epochs=() must hold at least one number"),
        (lambda: quickstart.Config(learning_rates=(0.1, -1.0)), "learning_rates=(0.1, -1.0) must"),
        (lambda: ncf.Config(dataset="movielens-100k", tower=(4, 0)), "tower=(4, 0) must hold"),
        (lambda: Options(first_seed=2**32), "first_seed=4294967296 must be from 0 to 4294967295"),
    ],
)
def test_numbers_out_of_range_are_refused_before_training(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
