"""Mistakes that a newcomer makes: a short message, exit code 2; and what a defect shows."""

import re
import sys

import pytest

from examples import cifar, ncf
from examples.training import command


def run(monkeypatch, module, arguments):
    """Runs a command as a shell does; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["python", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command.run(module.main, command.parser(module.Config, module.__name__, module.__doc__))
    return stopped.value.code


MISTAKES = {
    "an unknown flag": (ncf, ["--epoch", "3"], "--epoch"),
    "a word for a number": (ncf, ["--epochs", "many"], "many"),
    "a negative batch size": (ncf, ["--batch-size", "-1"], "batch_size=-1 must be at least 1"),
    "an unknown optimizer": (ncf, ["--optimizer", "adamlawn"], "adamlawn"),
    "a warm-up longer than the run": (ncf, ["--epochs", "3"], "warmup_epochs=10.0 must lie"),
    "norms of a later epoch": (
        ncf,
        ["--free-epochs", "2", "--norms-of", "3"],
        "norms_of=3.0 must be an epoch from 0 to free_epochs=2.0",
    ),
    "decay on fixed norms": (ncf, ["--weight-decay", "0.1"], "norms that are fixed cannot decay"),
    "a folder without data": (ncf, ["--data-dir", "TMP"], "no file of movielens-100k in"),
    "a broken file": (ncf, ["--data-dir", "BROKEN"], "u.data"),
    "an output in a file": (ncf, ["--out", "BROKEN/u.data/x.jsonl"], "cannot be written"),
    "images that are not there": (cifar, ["--data-dir", "TMP"], "cifar10"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_short(mistake, monkeypatch, tmp_path, capsys):
    module, arguments, says = MISTAKES[mistake]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "u.data").write_text("1\t2\tthree\n")
    dataset = "movielens-100k" if module is ncf else "cifar10"
    places = {"TMP": str(tmp_path), "BROKEN": str(tmp_path / "broken")}
    filled = [
        a.replace("BROKEN", places["BROKEN"]).replace("TMP", places["TMP"]) for a in arguments
    ]
    assert run(monkeypatch, module, ["--dataset", dataset, *filled]) == 2
    error = capsys.readouterr().err
    assert says in " ".join(re.sub("[│|]", " ", error).split())  # tyro's comes in a box
    assert "Traceback" not in error


def test_what_is_refused_after_the_options_is_one_line(monkeypatch, tmp_path, capsys):
    arguments = ["--dataset", "movielens-100k", "--data-dir", str(tmp_path)]
    assert run(monkeypatch, ncf, arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


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


def test_a_defect_shows_its_traceback():
    def main(config):
        return [].index(config)

    with pytest.raises(ValueError, match="not in list"):
        command.run(main, lambda: None)


def test_a_run_that_never_switches_says_so_before_and_after(monkeypatch, tmp_path, capsys):
    from examples import training
    from examples.results import records
    from examples.tasks.recommendation import ranking
    from examples.training.options import Options
    from tests.examples.toys import toy_interactions

    task = ranking.make_task(toy_interactions(), 20, (8, 4), None)
    options = Options(epochs=2, warmup_epochs=0, seeds=1, free_epochs=9.0, batch_size=20)
    lines = []
    command.run(lambda config: lines.append(training.train(task, config)), lambda: options)
    before, after = capsys.readouterr().err.strip().splitlines()
    assert before == (
        "free_epochs=9 with epochs=2: adam_lawn trains freely to the end, and LAWN never begins."
    )
    assert after.startswith("LAWN never began in 1 of 1 run(s)")
    (record,) = records.make_records({}, [0], lines[0])
    assert record["switched_at_epoch"] is None
    reached = training.train(task, Options(epochs=2, warmup_epochs=0, seeds=1, free_epochs=0.5))
    (record,) = records.make_records({}, [0], reached)
    assert record["switched_at_epoch"] == pytest.approx(0.5, abs=0.5)
