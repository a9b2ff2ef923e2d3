"""Compares AdamW with Adam's eps and with Adam-LAWN's, setting by setting."""

import dataclasses

import numpy as np

from benchmarks.paper.searches import LAWNS_EPS
from benchmarks.paper.studies import identity
from benchmarks.report.part import Missing, Part, sweep_command
from benchmarks.report.provenance import origin
from benchmarks.report.search_tables import done, load, test_score
from benchmarks.report.study_tables import Found
from examples.results import tables


def part() -> Part:
    """Return what is said of AdamW's eps."""
    found = load()
    return Part({"adamw-eps": text(found)}, missing=missing(found))


def text(found: Found) -> str:
    """Say by how much the scores of AdamW change; "" where they are not known."""
    part = done(LAWNS_EPS, found)
    score = test_score(LAWNS_EPS)
    runs, differences = [], []
    for search in part.searches:
        for space in part.search.spaces:
            for setting in LAWNS_EPS.settings(space, search):
                with_adams = dataclasses.replace(setting, adam_eps=1e-8)
                pair = [found[identity(run.config())] for run in (setting, with_adams)]
                lawns, adams = map(score, pair)
                runs += pair
                differences.append(lawns - adams)
    if not runs:
        return ""
    return (
        "With 1e-6 in place of 1e-8 its HR@10 changes by"
        f" {tables.mean_and_error(np.array(differences), digits=2)} points: mean ± standard error"
        f" of {len(differences)} settings of AdamW, {LAWNS_EPS.what}. {len(runs)} runs,"
        f" {origin(runs)}."
    )


def missing(found: Found) -> list[Missing]:
    """Return what was not run."""
    if done(LAWNS_EPS, found).searches:
        return []
    return [
        Missing(f"AdamW with Adam-LAWN's eps, {LAWNS_EPS.what}", "", sweep_command(LAWNS_EPS.name))
    ]
