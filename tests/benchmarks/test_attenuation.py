"""Figure 1's experiment: what parts at the onset, what stays, and that it goes on where it was."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from matplotlib.figure import Figure

from benchmarks.paper import attenuation
from benchmarks.report import attenuation_figure
from examples.results import records
from examples.tasks import recommendation
from examples.tasks.recommendation import ranking
from lawn_optax import diagnostics
from tests.examples.toys import toy_interactions

CONFIG = attenuation.AttenuationConfig(
    batch_size=50, epochs=4, onset=2, learning_rates=(1e-2,), seeds=1
)


@pytest.fixture(scope="module")
def task():
    return ranking.make_task(toy_interactions(), 50, (8, 6, 4), None)


@pytest.fixture(scope="module")
def results(task):
    (run,) = attenuation.runs(CONFIG)
    return attenuation.experiment(task, run, CONFIG.onset)


def norms(result):
    return {
        k: float(x[0]) for k, x in jax.vmap(diagnostics.weight_norms)(result.state.params).items()
    }


def test_the_factor_is_on_the_logits_of_the_loss_and_changes_no_ranking(task):
    model = nnx.jit(lambda: task.model(nnx.Rngs(0)))()
    batch = jax.tree.map(lambda x: x[0], jax.jit(task.batches)(jax.random.key(0)))
    attenuated = attenuation.attenuate(task, 0.2)
    _, margins = task.loss(model, batch)
    losses, smaller = attenuated.loss(model, batch)
    np.testing.assert_allclose(smaller, 0.2 * margins, rtol=1e-6)
    weights = batch[-1]
    np.testing.assert_allclose(losses, weights * np.log1p(np.exp(-smaller)), rtol=1e-5)
    whole, same = task.evaluate(model), attenuated.evaluate(model)
    assert whole == same


@pytest.mark.slow
def test_the_branches_are_one_until_the_onset_and_differ_from_there(results):
    assert results.keys() == attenuation.BRANCHES.keys()
    losses = np.stack([result.curve["train_loss"][0] for result in results.values()])
    assert losses.shape == (4, CONFIG.epochs)
    np.testing.assert_array_equal(losses[:, :2], losses[:1, :2].repeat(4, axis=0))
    assert len(set(losses[:, 2])) == 4


@pytest.mark.slow
def test_norms_are_held_at_the_onset_where_they_are_fixed(task, results, caplog):
    (run,) = attenuation.runs(CONFIG)
    shorter = attenuation.experiment(task, run, 1)
    assert not caplog.records  # Nobody is warned of branches that are meant to be free.
    fixed = norms(results["norms fixed"])
    # No weight changes at the onset, so the factor does not matter to what is captured.
    assert norms(results["logits times 0.2, norms fixed"]) == pytest.approx(fixed, rel=1e-5)
    for path in (path for path in fixed if not path.endswith("bias")):
        for other in (results["Adam"], results["logits times 0.2"], shorter["norms fixed"]):
            assert abs(norms(other)[path] / fixed[path] - 1) > 1e-4, path


def test_what_is_recorded_is_not_run_again_and_can_be_drawn(tmp_path, monkeypatch, results):
    monkeypatch.setattr(recommendation, "load", lambda *args, **kwargs: toy_interactions())
    monkeypatch.setattr(attenuation, "experiment", lambda *args: results)
    attenuation.main(dataclasses.replace(CONFIG, records=tmp_path))
    monkeypatch.setattr(attenuation, "experiment", None)
    attenuation.main(dataclasses.replace(CONFIG, records=tmp_path))
    found = records.read_records(tmp_path / "attenuation.jsonl")
    assert [record["config"]["branch"] for record in found] == list(attenuation.BRANCHES)
    assert [record["config"]["factor"] for record in found] == [1, 0.2, 0.2, 1]
    saved = {}
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: saved.update({path.name: self}))
    attenuation_figure.draw(tmp_path / "figure.png", found)
    ratio, margin = saved["figure.png"].axes
    assert (ratio.get_ylabel(), margin.get_ylabel()) == ("HR@10 (%)", "median training margin")
    *branches, onset = ratio.lines
    assert len(branches) == len(attenuation.BRANCHES)
    np.testing.assert_allclose(
        branches[2].get_ydata(), 100 * np.array(found[2]["curve"]["hr_at_10"])
    )
    assert set(onset.get_xdata()) == {CONFIG.onset}
    table = attenuation_figure.table(found).splitlines()
    assert len(table) == 2 + 4
    last = 100 * found[2]["final"]["hr_at_10"]
    assert (
        f"| logits times 0.2, norms fixed | {100 * found[2]['curve']['hr_at_10'][1]:.2f} "
        in table[4]
    )
    assert f"| {last:.2f} " in table[4]


def test_an_onset_outside_the_run_is_refused():
    with pytest.raises(ValueError, match="onset=4 must lie between 0 and epochs=4"):
        attenuation.AttenuationConfig(epochs=4, onset=4)
