"""The trial from outside: what is counted as above Adam and below, and where nothing was run."""

from benchmarks.report import trial_figure


def cells(table):
    """Return the cells of each row of a Markdown table."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def record(gain, error, best, name="a_problem"):
    return {
        "name": name,
        "adam": 90.0,
        "diff": [gain, error],
        "free": {"0.02": [0.1, 0.1], "0.4": [best, 0.1]},
    }


FOUND = [
    record(-1.0, 0.6, 0.2, "one"),
    record(-0.2, 0.0, 0.0, "two"),
    record(1.0, 0.5, 2.0, "three"),
    record(3.0, 1.4, 3.5, "four"),
]
AGAIN = [run | {"diff": [2.0, 0.5]} for run in reversed(FOUND)]


def test_beyond_two_standard_errors_counts():
    table = trial_figure.table(FOUND, AGAIN)
    rows = {row[0]: row[1:] for row in cells(table)}
    assert rows[trial_figure.TRIED] == ["+0.7", "+0.4", "-0.8", "-1.0", "+3.0", "1", "1"]
    assert rows[trial_figure.NOW] == ["+2.0", "+2.0", "+2.0", "+2.0", "+2.0", "4", "0"]
    assert rows["2% of the updates free"] == ["+0.1", "+0.1", "+0.1", "+0.1", "+0.1", "0", "0"]
    assert rows["40% of the updates free"][-2:] == ["2", "0"]


def test_the_finding_has_the_median_and_both_ends_beside_the_best_free_phase():
    (finding,) = trial_figure.findings(FOUND)
    assert finding.figure == "+0.4 (-1.0 to +3.0)"
    assert finding.beside == "best free phase: +1.1 (+0.1 to +3.5)"


def test_a_row_per_problem_is_drawn(tmp_path):
    trial_figure.draw(tmp_path / "picture.png", FOUND, AGAIN)
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_without_records_nothing_is_said_or_drawn(tmp_path):
    trial_figure.draw(tmp_path / "picture.png", [], [])
    assert not list(tmp_path.iterdir())
    assert trial_figure.page("picture.png", [], []) == ""
    assert trial_figure.findings([]) == []
