"""Pictures of sweeps: which points they hold, from which runs, and what a failed run looks like."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmarks.paper import studies
from benchmarks.paper.catalog import PAPER, STUDIES, WIDE
from benchmarks.report import figures, study_tables
from examples import ncf

NAMES = ("batch-50", "batch-500")
CURVES = studies.EXAMPLES[ncf.Config].curves


@pytest.fixture
def panels(monkeypatch):
    """Two batch sizes, of which `all_runs` has two optimizers."""
    for name, batch_size in zip(NAMES, (50, 500), strict=True):
        study = studies.Study(
            name=name,
            base=ncf.Config(
                dataset="movielens-100k", batch_size=batch_size, epochs=2, warmup_epochs=0
            ),
            learning_rates=dict.fromkeys(study_tables.PAPERS_FIVE, (0.1, 0.2)),
            free_epochs=(1.0, 0.5),
            decays={PAPER: (0.0,), WIDE: (0.0, 1.0)},
        )
        monkeypatch.setitem(STUDIES, name, study)
    rows = [[study_tables.Row("Adam", STUDIES[name], "adam", "")] for name in NAMES]
    made = [study_tables.Table(name, row) for name, row in zip(NAMES, rows, strict=True)]
    return {"Toy": study_tables.Section("", [], made)}


def score(run):
    """Best at the higher peak, with decay 1 or half a free epoch; less at the larger batch."""
    free = 2.0 if run.free_epochs == studies.AUTOMATIC else run.free_epochs
    knob = run.weight_decay if run.optimizer == "adam" else 1 - free
    return run.learning_rate + 0.1 * knob - run.batch_size / 1e4 + run.first_seed % 10 / 100


def found_of(runs):
    """Records with just what pictures read."""
    return {
        studies.identity(run.config()): {
            "config": run.config(),
            "seed": run.first_seed,
            "final": {"hr_at_10": score(run), "ndcg_at_10": 0.0},
            "curve": {name: [0.0, score(run)] for name in CURVES},
        }
        for run in runs
    }


def all_runs():
    for study in (STUDIES[name] for name in NAMES):
        for optimizer in ("adam", "adam_lawn"):
            for setting in itertools.chain(*study.to_try(optimizer)):
                yield study.tried(setting)
                yield from studies.reported(setting)


def test_scores_against_batch_size(panels):
    lines = {line.label: line for line in figures.by_batch(panels, found_of(all_runs()))}
    auto = "Adam-LAWN, at_flattening"
    assert lines.keys() == {f"Adam, {PAPER}", f"Adam, {WIDE}", "Adam-LAWN", auto}
    np.testing.assert_array_equal(lines["Adam-LAWN"].x, [50, 500])
    # The best of each set, by the three seeds that did not choose it.
    np.testing.assert_allclose(lines[f"Adam, {PAPER}"].y, [[19.5, 20.5, 21.5], [15, 16, 17]])
    np.testing.assert_allclose(lines[f"Adam, {WIDE}"].y, [[29.5, 30.5, 31.5], [25, 26, 27]])
    np.testing.assert_allclose(lines["Adam-LAWN"].y, [[24.5, 25.5, 26.5], [20, 21, 22]])
    np.testing.assert_allclose(lines[auto].y, [[9.5, 10.5, 11.5], [5, 6, 7]])
    assert [line.hollow for line in lines.values()] == [True, False, False, True]


def test_what_was_not_run_is_left_out(panels):
    found = found_of(run for run in all_runs() if run.batch_size == 50 or run.optimizer == "adam")
    lines = {line.label: line for line in figures.by_batch(panels, found)}
    np.testing.assert_array_equal(lines["Adam-LAWN"].x, [50])
    caption = figures.caption_batch_sizes("link.png", panels, [*lines.values()], {})
    assert "6 of 20 points; the others are not yet run." in caption


def test_one_batch_size_is_compared_with_nothing(panels):
    alone = {"Alone": panels["Toy"]._replace(tables=panels["Toy"].tables[:1])}
    found = found_of(all_runs())
    assert figures.by_batch(alone, found) == []
    assert len(figures.by_batch(panels | alone, found)) == 4


def test_scores_against_free_epochs_at_the_peak_that_was_chosen(panels):
    first, second = figures.by_free(panels, found_of(all_runs()))
    assert "Batch size 50, 2 epochs" in first.panel
    np.testing.assert_array_equal(first.x, [0.5, 1.0])
    np.testing.assert_allclose(first.y, [[24.5], [19.5]])
    np.testing.assert_allclose(second.y, [[20], [15]])


def test_a_failure_is_written_at_the_edge_of_the_panel():
    points = {"adam": [60.0, 66.0], "sgd": [58.0, 3.0], "lamb": [65.0, 20.0]}
    lines = [
        figures.Line("Toy", name, name, np.array([10, 100]), np.array(y)[:, None])
        for name, y in points.items()
    ]
    axes = Figure().subplots()
    for line in lines:
        figures._plot(axes, line)
    figures._crop(axes, lines)
    assert axes.get_ylim()[0] == 66 - figures.SHOWN
    written = {text.get_text(): text.xy[0] for text in axes.texts}
    assert written == {"↓ 3.0": 100, "↓ 20.0": 100}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, by the name of the file."""
    saved = {}
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: saved.update({path.name: self}))
    return saved


def test_a_picture_has_a_panel_for_each_title_and_a_line_for_each_optimizer(tmp_path, drawn):
    x, y = np.array([10, 100]), np.array([[60.0, 62.0], [64.0, 66.0]])
    lines = [
        figures.Line("First", "adam", "Adam", x, y),
        figures.Line("First", "lamb", "LAMB", x, y - 1, hollow=True),
        figures.Line("Second", "adam", "Adam", x, y + 1),
    ]
    figures.draw_lines(tmp_path / "figure.png", lines, "batch size", "HR@10")
    first, second = (axes for axes in drawn["figure.png"].axes if axes.get_visible())
    assert (first.get_title(), second.get_title()) == ("First", "Second")
    assert (first.get_xlabel(), first.get_ylabel()) == ("batch size", "HR@10 (%)")
    shown = [container.lines[0] for container in first.containers]
    np.testing.assert_allclose([line.get_ydata() for line in shown], [[61, 65], [60, 64]])
    assert [line.get_linestyle() for line in shown] == ["-", "--"]
    (legend,) = drawn["figure.png"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["Adam", "LAMB"]
    figures.draw_lines(tmp_path / "none.png", [], "batch size", "HR@10")
    assert drawn.keys() == {"figure.png"}


def test_a_panel_without_failures_keeps_its_axis():
    lines = [figures.Line("Toy", "adam", "Adam", np.array([1, 2]), np.array([[60.0], [66.0]]))]
    axes = Figure().subplots()
    figures._plot(axes, lines[0])
    before = axes.get_ylim()
    figures._crop(axes, lines)
    assert axes.get_ylim() == before
    assert not axes.texts
