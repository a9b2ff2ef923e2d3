"""What is said of AdamW's eps, against made scores."""

import dataclasses

from benchmarks.paper.searches import LAWNS_EPS
from benchmarks.paper.studies import identity
from benchmarks.report import eps_table


def test_settings_are_compared_in_pairs(monkeypatch):
    monkeypatch.setattr(eps_table, "test_score", lambda search: lambda run: run["score"])
    (space,) = LAWNS_EPS.spaces
    found = {}
    for i, setting in enumerate(LAWNS_EPS.settings(space, 0)):
        with_adams = dataclasses.replace(setting, adam_eps=1e-8)
        for run, score in ((setting, 10 * i + 2.0), (with_adams, 10.0 * i)):
            about = {"device": "cpu", "versions": {"commit": "abc"}, "seed": 0}
            found[identity(run.config())] = about | {"score": score}
    assert " changes by 2.00 ± 0.00 points: mean" in eps_table.text(found)
    assert f"of {LAWNS_EPS.trials} settings" in eps_table.text(found)
    assert eps_table.missing(found) == []


def test_without_runs_it_says_which_command_makes_them():
    assert eps_table.text({}) == ""
    (entry,) = eps_table.missing({})
    assert entry.command.endswith(f"--study {LAWNS_EPS.name} --data-dir DIR")
