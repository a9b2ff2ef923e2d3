"""The speed of image classifiers: what is counted, measured, recorded, and said where it is not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.measure import images
from benchmarks.report import goals
from benchmarks.tools import flops
from examples.results import records
from examples.tasks.images import Network


class Small(nnx.Module):
    """Eight channels in two groups, batch statistics and a classifier."""

    def __init__(self, classes, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.grouped = nnx.Conv(4, 8, (1, 3), feature_group_count=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, x):
        return self.head(jnp.mean(nnx.relu(self.norm(self.grouped(self.conv(x)))), axis=(1, 2)))


# Of an image of 8 by 8: what Small multiplies and adds.
OF_SMALL = 4 * 4 * (4 * 3 * 9 + 8 * 2 * 3) + 8 * 5


def vgg19():
    """Convolutions of 3 by 3, the image max_pool_2x2 after each stage; the classifier."""
    of_stages = (
        32**2 * (3 * 64 + 64 * 64),
        16**2 * (64 * 128 + 128 * 128),
        8**2 * (128 * 256 + 3 * 256 * 256),
        4**2 * (256 * 512 + 3 * 512 * 512),
        2**2 * (4 * 512 * 512),
    )
    return 9 * sum(of_stages) + 512 * 10


def resnet50():
    """Bottlenecks, of whose first three convolutions in a stage the second halves the image."""
    total, inputs, before = 112**2 * 49 * 3 * 64, 64, 56
    for blocks, channels, pixels in ((3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)):
        total += before**2 * inputs * channels + pixels**2 * inputs * 4 * channels
        total += (blocks - 1) * pixels**2 * 4 * channels * channels
        total += blocks * pixels**2 * (9 + 4) * channels * channels
        inputs, before = 4 * channels, pixels
    return total + 2048 * 1000


class TestModelFlops:
    """Multiply-adds of a forward pass, counted by hand."""

    @pytest.mark.parametrize(
        ("name", "pixels", "classes", "by_hand", "published"),
        [("vgg19", 32, 10, vgg19(), 0.40e9), ("resnet50", 224, 1000, resnet50(), 4.09e9)],
    )
    def test_networks(self, name, pixels, classes, by_hand, published):
        make = lambda: Network(model=name).make(classes, nnx.Rngs(0))
        assert flops.multiply_adds(make, (pixels, pixels, 3)) == by_hand
        assert by_hand == pytest.approx(published, rel=5e-3)

    def test_strides_groups_and_products(self):
        assert flops.multiply_adds(lambda: Small(5, nnx.Rngs(0)), (8, 8, 3)) == OF_SMALL

    def test_a_loop_is_refused(self):
        class Looped(Small):
            def __call__(self, x):
                return jax.lax.map(lambda row: row @ row.T, x)

        with pytest.raises(ValueError, match="the network has a scan"):
            flops.multiply_adds(lambda: Looped(5, nnx.Rngs(0)), (8, 3))


def test_images_as_they_are_differ_in_nothing_else(monkeypatch):
    monkeypatch.setitem(images.WORKLOADS, "vgg5", images.ImageWorkload(8, 5, 4096, True))
    task = images.make_task("vgg5", 4, images.ImageSpeedConfig(steps=2))
    plain, key = dataclasses.replace(task, augmented=False), jax.random.key(0)
    augmented, same = (jax.tree.map(lambda x: x[0], of.batches(key)) for of in (task, plain))
    assert task.steps_per_epoch == plain.steps_per_epoch == 2
    np.testing.assert_array_equal(augmented.images, same.images)
    np.testing.assert_array_equal(plain.pixels(same), task.images[same.images])
    assert (task.pixels(augmented) != plain.pixels(same)).any()


@pytest.mark.slow
def test_it_prints_and_records(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(images.WORKLOADS, "vgg5", images.ImageWorkload(8, 5, 4096, True))
    rngs = lambda: nnx.Rngs(jax.random.key(0, impl="rbg"))  # As Network.make: it compiles faster.
    monkeypatch.setattr(Network, "make", lambda _, classes, __: Small(classes, rngs()))
    config = images.ImageSpeedConfig(
        models=("vgg5",),
        batch_size=4,
        dtype="float32",
        steps=3,
        windows=2,
        peak_tflops=0.5,
        out=tmp_path / "new" / "speed.jsonl",
    )
    images.main(config)
    assert "| vgg5  | 4          |" in capsys.readouterr().out
    (record,) = records.read_records(config.out)
    assert record["multiply_adds"] == OF_SMALL
    assert record["backend"] == "cpu"
    assert "cores" in record["device"]
    assert len(record["seconds"]) == 4
    assert all(len(times) == 2 and min(times) > 0 for times in record["seconds"].values())
    # At the least the images, the weights and Adam's moments.
    assert record["memory"] > 3 * 4 * 8 * 8 * 3 + 3 * 4 * record["parameters"]
    assert len(goals.missing([record])) == len(goals.GOALS)  # a CPU reaches no goal of an H200


@pytest.fixture
def record():
    """VGG-19 as it is to be measured, at round times."""
    return {
        **{
            "benchmark": "image-speed",
            "model": "vgg19",
            "width": 1.0,
            "dtype": "bfloat16",
            "batch_size": 4096,
        },
        **{"multiply_adds": 400_000_000, "peak_tflops": 1000.0, "backend": "gpu"},
        **{"device": "NVIDIA H200", "steps": 12, "windows": 3, "compile_s": 30.0, "memory": 2**33},
        "seconds": {
            "adam": [0.020, 0.018, 0.040],
            "adam_lawn": [0.025, 0.020, 0.040],
            "adam, as they are": [0.018, 0.017, 0.038],
            "evaluation": [1e-6, 1e-6, 2e-6],
        },
    }


def test_what_is_shown_follows_from_the_times(record):
    assert images.images_per_second(record, "adam_lawn") == 4096 / 0.025
    # Three times two FLOPs a multiply-add of 163,840 images a second.
    assert images.share_of_peak(record) == pytest.approx(6 * 4e8 * 163_840 / 1e15)
    np.testing.assert_allclose(images.share(record, "LAWN"), [0.2, 0.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(images.share(record, "augmentation"), [0.1, 1 / 18, 0.05])
    # 300 epochs of 12 steps and 10,000 images.
    assert images.seconds_of_epochs(record) == pytest.approx(30 + 300 * (12 * 0.025 + 0.01))


def test_what_is_not_known_is_blank(record):
    of_imagenet = {name: record["seconds"][name] for name in ("adam", "adam_lawn")}
    row = images.table([record | {"peak_tflops": None, "seconds": of_imagenet}])
    cells = [cell.strip() for cell in row.splitlines()[-1].strip("|").split("|")]
    assert cells[5:8] == ["", "", ""]
    assert cells[4] == "10.0% (0.0% to 20.0%)"


def test_goals_are_measured_by_whole_networks_on_the_right_device(record):
    text = goals.table([record])
    assert [line.split("|")[1].split(":")[0].strip() for line in text.splitlines()[2:]] == [
        "VGG-19 at batch 4,096"
    ] * 4
    assert "| 45% or more     | 39.3% " in text
    assert "| 0:03:00 or less | 0:02:03 " in text
    speed, share = (g for g in goals.missing([record]) if g.what.startswith("ResNet-50"))
    assert "--models resnet50 --out benchmarks/records/" in speed.command == share.command
    others = ({"width": 0.25}, {"batch_size": 128}, {"dtype": "float32"}, {"device": "NVIDIA A100"})
    for other in others:
        assert len(goals.missing([record | other])) == len(goals.GOALS)


def test_unknown_devices_have_no_peak_but_one_that_is_given():
    assert images.peak_tflops(images.ImageSpeedConfig()) is None
    assert images.peak_tflops(images.ImageSpeedConfig(peak_tflops=3.0)) == 3.0


@pytest.mark.parametrize("name", ["steps", "windows", "batch_size", "peak_tflops"])
def test_nothing_to_measure_is_refused(name):
    least = "above 0" if name == "peak_tflops" else "at least 1"
    with pytest.raises(ValueError, match=f"{name}=0 must be {least}"):
        images.ImageSpeedConfig(**{name: 0})
