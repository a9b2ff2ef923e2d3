"""The examples on a mesh: they compute what one device computes, each device with its part."""

import dataclasses
import os
import signal

import jax
import numpy as np
import optax
import pytest
import tyro
from jax.sharding import PartitionSpec as P

from examples import ncf, training
from examples.tasks.recommendation import Interactions, ranking
from examples.training.distributed import StoppedError
from examples.training.options import Options
from examples.training.sharding import MeshConfig, split
from tests.helpers import max_difference

# In five batches of 30 the switch comes in the second epoch; 30 examples do not divide by 8 or 4.
OPTIONS = Options(optimizer="lamb_lawn", epochs=3, batch_size=30, seeds=2, free_epochs=1.5)


@pytest.fixture(scope="module")
def task():
    """Eight users, whose table of 8 x 8 splits by rows, and 13 items, whose table does not."""
    rng = np.random.default_rng(0)
    train = [(u, i) for u in range(8) for i in np.sort(rng.choice(13, 1 + u % 6, replace=False))]
    candidates = rng.integers(0, 13, (8, 30))
    arrays = (np.array(table, np.int32) for table in (train, candidates))
    data = Interactions("toy", *arrays, num_items=13, num_interactions=36, removed_users=0)
    return ranking.make_task(data, 30, (16, 8), None)


@pytest.fixture(scope="module")
def alone(task):
    """What one device computes."""
    return training.train(task, OPTIONS)


def parts(tree):
    """Into how many different parts each leaf is split."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): len(
            {str(part.index) for part in leaf.addressable_shards}
        )
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


@pytest.mark.parametrize(
    ("mesh", "tables"),
    [
        (MeshConfig(data=2, fsdp=2, tensor=2), (4, 4)),
        pytest.param(MeshConfig(data=8), (1, 1), marks=pytest.mark.slow),
        pytest.param(MeshConfig(data=1, fsdp=-1), (8, 8), marks=pytest.mark.slow),
    ],
)
def test_a_mesh_computes_what_one_device_computes(mesh, tables, task, alone):
    result = training.train(task, dataclasses.replace(OPTIONS, mesh=mesh))
    state = result.state
    found = parts(state.params)
    assert (found["users/embedding"], found["items/embedding"]) == tables
    assert {len(w.sharding.device_set) for w in jax.tree.leaves(state.params)} == {8}
    # A moment lies where its weight does, a norm is everywhere.
    for moment in ("mu", "nu"):
        assert parts(optax.tree.get(state.opt_state, moment)) == found
    norms = optax.tree.get(state.opt_state, "norms")
    assert norms
    assert all(norm.sharding.is_fully_replicated for norm in norms.values())
    for name, values in alone.curve.items():
        np.testing.assert_allclose(result.curve[name], values, rtol=1e-5, err_msg=name)
    assert max_difference(state.params, alone.state.params) < 1e-6


@pytest.mark.parametrize(
    "meshes",
    [
        (MeshConfig(data=2, fsdp=2, tensor=2),),
        pytest.param(
            (MeshConfig(fsdp=8), MeshConfig(data=2, fsdp=2, tensor=2)), marks=pytest.mark.slow
        ),
    ],
    ids=len,
)
def test_a_run_stopped_on_a_mesh_goes_on_on_others(meshes, task, alone, tmp_path, monkeypatch):
    options = dataclasses.replace(OPTIONS, checkpoint_dir=tmp_path)
    train_epoch = training.train_epoch

    def terminate(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return train_epoch(*args)

    for mesh in meshes:
        with monkeypatch.context() as patch:
            patch.setattr(training.loop, "train_epoch", terminate)
            with pytest.raises(StoppedError):
                training.train(task, dataclasses.replace(options, mesh=mesh))
    result = training.train(task, options)
    assert result.resumed_from == len(meshes)
    for name, values in alone.curve.items():
        np.testing.assert_allclose(result.curve[name], values, rtol=1e-5, err_msg=name)


class TestSizes:
    """From the command line to the sizes of the axes."""

    def sizes(self, arguments, devices=8, processes=1):
        command = f"--dataset movielens-100k {arguments}".split()
        config = tyro.cli(ncf.Config, args=command).mesh
        return tuple(config.sizes(devices, processes).values())

    def test_one_device_unless_there_are_several_processes(self):
        assert self.sizes("") == (1, 1, 1)
        assert self.sizes("", processes=2) == (8, 1, 1)
        assert self.sizes("--mesh.fsdp 4", processes=2) == (2, 4, 1)
        assert self.sizes("--mesh.fsdp -1", processes=2) == (1, 8, 1)

    def test_what_is_left(self):
        assert self.sizes("--mesh.data -1") == (8, 1, 1)
        assert self.sizes("--mesh.data -1 --mesh.tensor 2") == (4, 1, 2)
        assert self.sizes("--mesh.data 2 --mesh.fsdp -1 --mesh.tensor 2") == (2, 2, 2)
        assert self.sizes("--mesh.data 2 --mesh.fsdp 2") == (2, 2, 1)

    @pytest.mark.parametrize(
        ("sizes", "processes", "message"),
        [
            ({"data": 3, "fsdp": 3}, 1, r"data=3 x fsdp=3 x tensor=1 takes 9 devices.*there are 8"),
            ({"data": -1, "tensor": 3}, 1, r"leaves 2 of 8 devices idle.*product is 8"),
            ({"data": 2}, 2, r"data=2 x fsdp=1 x tensor=1 leaves 6 of 8 devices idle"),
            ({"data": -1, "fsdp": -1}, 1, r"more than one -1"),
            ({"tensor": 0}, 1, r"mesh.tensor=0 must be at least 1"),
        ],
    )
    def test_what_does_not_go_up_is_named(self, sizes, processes, message):
        with pytest.raises(ValueError, match=message):
            MeshConfig(**sizes).sizes(8, processes)

    def test_an_axis_that_does_not_divide_leaves_the_other_one(self):
        sizes = {"data": 1, "fsdp": 4, "tensor": 2}
        assert split((2, 943, 128), sizes) == P(None, None, ("fsdp", "tensor"))
        assert split((2, 6040, 128), sizes) == P(None, ("fsdp",), ("tensor",))
        assert split((2, 3, 3, 64, 127), sizes) == P(None, None, None, ("fsdp", "tensor"), None)
        assert split((2, 943, 127), sizes) == P(None, None, None)
        assert split((2, 128), sizes) == P()
