"""Checkpoints of the examples: what is torn is reported and passed over, what is alien refused."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lawn_optax as lo
from examples.training.checkpoints import Checkpoints, Progress

RUN = {"optimizer": "adam_lawn", "tower": (8, 4), "seeds": [0, 1]}


def progress(epoch):
    """Bits that tell one epoch from another; float32s that are no short decimals."""
    rng = np.random.default_rng(epoch)
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    state = {
        "weight": draw((2, 8, 6)),
        "count": jnp.int32([epoch, epoch]),
        "key": jax.random.split(jax.random.key(epoch)),
    }
    curve = {"loss": [np.asarray(draw(2)) for _ in range(epoch)]}
    return Progress(epoch, state, curve, 0.1 * epoch)


def save(folder, epochs, run=RUN):
    store = Checkpoints(folder, run)
    for epoch in epochs:
        store.save(progress(epoch))
    store.close()


def latest(folder, run=RUN, start=None):
    store = Checkpoints(folder, run)
    found = store.latest(start or progress(0))
    store.close()
    return found


def assert_is(found, epoch):
    """To the bit."""
    want = progress(epoch)
    assert (found.epoch, found.wall_s) == (epoch, want.wall_s)
    for x, y in zip(found.curve["loss"], want.curve["loss"], strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
    for name, leaf in want.state.items():
        assert found.state[name].dtype == leaf.dtype
        assert (found.state[name] == leaf).all(), name


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Five epochs, of which the last three are there."""
    folder = tmp_path_factory.mktemp("saved")
    save(folder, range(1, 6))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "copy")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_last_three_are_kept(saved):
    assert names(saved) == ["3", "4", "5", "newest"]
    assert_is(latest(saved), 5)


def test_a_new_folder_has_none(tmp_path, caplog):
    assert latest(tmp_path / "new").epoch == 0
    assert not caplog.records


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def zero(path):
    """As a disk may after a power cut: the length is right, the last bytes are not."""
    content = path.read_bytes()
    path.write_bytes(content[:-8] + bytes(8) if content[-8:] != bytes(8) else bytes(len(content)))


@pytest.mark.parametrize("spoil", [cut, empty, zero, lambda path: path.unlink()])
def test_any_torn_file_is_reported_and_the_previous_one_used(spoil, saved, tmp_path, caplog):
    files = [path.relative_to(saved) for path in (saved / "5").rglob("*") if path.is_file()]
    assert len(files) > 5
    for i, file in enumerate(f for f in files if (saved / f).stat().st_size):
        folder = shutil.copytree(saved, tmp_path / str(i))
        spoil(folder / file)
        caplog.clear()
        assert_is(latest(folder), 4)
        (record,) = caplog.records
        assert "The checkpoint of epoch 5" in record.message
        assert str(file.relative_to("5")) in record.message
        assert record.message.endswith("training goes on from epoch 4.")


def test_a_missing_one_is_reported_and_the_previous_one_used(folder, caplog):
    shutil.rmtree(folder / "5")
    shutil.rmtree(folder / "4" / "state")
    assert_is(latest(folder), 3)
    first, second = (record.message for record in caplog.records)
    assert "epoch 5" in first
    assert "it is missing" in first
    assert "epoch 4" in second
    assert "state" in second


def test_a_torn_one_gives_way_when_it_is_reached_again(folder, caplog):
    empty(folder / "5" / "progress.json")
    shutil.copytree(folder / "4", folder / "6.tmp")  # A process was killed while it saved.
    save(folder, [5])
    assert names(folder) == ["3", "4", "5", "newest"]
    assert_is(latest(folder), 5)


def test_with_none_whole_a_run_begins_anew(folder, caplog):
    for epoch in (3, 4, 5):
        empty(folder / str(epoch) / "progress.json")
    assert latest(folder).epoch == 0
    assert [r.message.endswith("training begins anew.") for r in caplog.records] == 3 * [True]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "precious").write_text("")
    with pytest.raises(ValueError, match=r"has 7, none of which is a whole checkpoint of the ex"):
        latest(tmp_path)
    assert (tmp_path / "7" / "precious").exists()


def test_another_run_is_refused_by_what_differs(folder, tmp_path):
    other = RUN | {"optimizer": "sgd", "loss": "focal"}
    message = r"loss is absent there and focal here; optimizer is adam_lawn there and sgd here"
    with pytest.raises(ValueError, match=message):
        latest(folder, other)
    save(tmp_path / "other", [1], other)
    shutil.copytree(folder / "5", tmp_path / "other" / "5")
    with pytest.raises(ValueError, match=r"loss is absent there and focal here"):
        latest(tmp_path / "other", other)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"mask": lo.except_paths("table")}, r"norms/table is float32\[\] there and absent here"),
        ({"axes": 0}, r"norms/dense is float32\[\] there and float32\[4\] here"),
    ],
)
def test_another_mask_or_axes_is_refused_by_what_differs(other, message, tmp_path):
    params = {"dense": np.ones((6, 4), np.float32), "table": np.ones((5, 3), np.float32)}
    of = lambda **options: progress(1)._replace(state=lo.adam_lawn(1.0, 1, **options).init(params))
    store = Checkpoints(tmp_path, RUN)
    store.save(of())
    with pytest.raises(ValueError, match=message):
        store.latest(of(**other))
    store.close()


def test_one_of_a_mesh_is_restored_on_another(tmp_path):
    def spread(tree, shape):
        axes = (AxisType.Auto, AxisType.Auto)
        mesh = jax.make_mesh(shape, ("fsdp", "tensor"), axes)
        place = lambda x: P(None, "fsdp", "tensor") if x.ndim == 3 else P()
        return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, place(x))), tree)

    save(tmp_path, [1])
    for there, here in [((4, 2), (2, 1)), ((8, 1), (4, 2))]:
        store = Checkpoints(tmp_path, RUN)
        store.save(progress(2)._replace(state=spread(progress(2).state, there)))
        start = progress(0)._replace(state=spread(progress(0).state, here))
        found = store.latest(start)
        assert_is(found, 2)
        assert found.state["weight"].sharding == start.state["weight"].sharding
        assert_is(store.latest(progress(0)), 2)
        store.close()
