"""ImageNet: what is cut from a photograph, the stream of batches, the command, and how it goes on.

The images are a small folder in the format that TensorFlow Datasets writes, made here.
"""

import contextlib
import dataclasses
import io
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorflow_datasets as tfds
from flax import nnx
from PIL import Image

from examples import imagenet, training
from examples.results import records
from examples.tasks.images import crops, files, recipes, stream, streamed
from examples.tasks.images.models import Network
from examples.training import checkpoints, distributed
from examples.training.sharding import MeshConfig
from tests.examples.stopping import assert_same
from tests.helpers import free_port, max_difference

TRAIN, HELD_OUT = 48, 13


def photograph(seed, mode="RGB"):
    """A JPEG file of smooth colours, wider or higher."""
    rng = np.random.default_rng(seed)
    size = tuple(map(int, rng.integers(40, 90, 2)))
    shape = (4, 4, 3) if mode == "RGB" else (4, 4)
    pixels = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
    file = io.BytesIO()
    pixels.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What TFDS writes for ImageNet, smaller: the label of an image says which it is."""

    VERSION = tfds.core.Version("5.1.0")
    name = "imagenet2012"

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=1000),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        numbers = {"train": range(TRAIN), "validation": range(100, 100 + HELD_OUT)}
        return {split: self._generate_examples(n) for split, n in numbers.items()}

    def _generate_examples(self, numbers):
        for n in numbers:
            file = io.BytesIO(photograph(n))
            yield n, {"image": file, "label": n, "file_name": f"{n}.JPEG"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    Tiny(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder


TRAINER = """
import multiprocessing, time
from examples.tasks.images import stream

def work(ready):
    stream._follow(0, 1)
    ready.set()
    time.sleep(60)

context = multiprocessing.get_context("fork")
ready = context.Event()
worker = context.Process(target=work, args=(ready,))
worker.start()
ready.wait()
print(worker.pid, flush=True)
time.sleep(60)
"""


def running(process):
    """Whether there is such a process that is more than an entry for its parent to read."""
    try:
        return not re.search(r"State:\s+Z", Path(f"/proc/{process}/status").read_text())
    except FileNotFoundError:
        return False


def shrunk(pixels, size):
    """Resized by the definition of the bilinear filter: each pixel weighs as it lies under a tent.

    The tent is as wide as two pixels of the result, or of the image where that is the smaller one.
    """

    def weights(before, after):
        scale = before / after
        centre = (np.arange(after)[:, None] + 0.5) * scale
        distance = np.abs(np.arange(before) + 0.5 - centre) / max(scale, 1)
        tent = np.maximum(1 - distance, 0)
        return tent / tent.sum(axis=1, keepdims=True)

    height, width, _ = pixels.shape
    rows, columns = weights(height, size[1]), weights(width, size[0])
    return np.einsum("yh,xw,hwc->yxc", rows, columns, pixels.astype(float))


def opened(file):
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


class TestCrops:
    """Against the algorithm as torchvision documents it, and a filter written out."""

    @pytest.mark.parametrize("size", [(500, 375), (300, 400), (64, 200)])
    def test_boxes_are_distributed_as_documented(self, size):
        width, height = size
        rng = np.random.default_rng(0)
        boxes = np.array([crops.random_box(rng, *size) for _ in range(4000)])
        left, top, right, bottom = boxes.T
        assert (left >= 0).all()
        assert (top >= 0).all()
        assert (right <= width).all()
        assert (bottom <= height).all()
        # Of ten draws the first that fits, all at once; one in the middle where none does.
        rng, n = np.random.default_rng(1), 40_000
        area = rng.uniform(0.08, 1, (10, n)) * width * height
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), (10, n)))
        w, h = np.round(np.sqrt(area * ratio)), np.round(np.sqrt(area / ratio))
        fits = (w <= width) & (h <= height)
        chosen = fits.argmax(axis=0), np.arange(n)
        some = fits.any(axis=0)
        w, h = w[chosen][some], h[chosen][some]
        x, y = (
            np.floor(rng.uniform(size=w.shape) * (free + 1)) for free in (width - w, height - h)
        )
        found = {"width": right - left, "height": bottom - top, "left": left, "top": top}
        for (name, values), expected in zip(found.items(), (w, h, x, y), strict=True):
            apart = distance(values, expected)
            # Kolmogorov and Smirnov's limit, which chance passes once in a thousand times.
            assert apart < 1.95 * math.sqrt(1 / 4000 + 1 / n) + 2 * (1 - some.mean()), name

    @pytest.mark.parametrize(
        ("size", "box"), [((400, 20), (186, 0, 213, 20)), ((20, 400), (0, 186, 20, 213))]
    )
    def test_where_none_fits_it_is_the_middle(self, size, box):
        class Whole:
            def uniform(self, low, high):
                return high

        assert crops.random_box(Whole(), *size) == box

    def test_pixels_for_training(self):
        file, flips = photograph(3), []
        pixels = opened(file)
        for seed in range(40):
            found = crops.for_training(file, 32, np.random.default_rng(seed)).astype(float)
            rng = np.random.default_rng(seed)
            left, top, right, bottom = crops.random_box(rng, pixels.shape[1], pixels.shape[0])
            expected = shrunk(pixels[top:bottom, left:right], (32, 32))
            flips.append(np.abs(found - expected[:, ::-1]).max() <= 1)
            # Pillow rounds after the columns and again after the rows.
            assert flips[-1] or np.abs(found - expected).max() <= 1
        assert 10 < sum(flips) < 30

    @pytest.mark.parametrize("seed", [0, 4])
    def test_pixels_for_evaluation(self, seed):
        pixels = opened(photograph(seed))
        height, width, _ = pixels.shape
        assert (width > height) == (seed == 0)
        shorter = 32 * 256 // 224
        size = [shorter * side // min(width, height) for side in (width, height)]
        left, top = (round((side - 32) / 2) for side in size)
        expected = shrunk(pixels, size)[top : top + 32, left : left + 32]
        found = crops.for_evaluation(photograph(seed), 32)
        assert found.shape == (32, 32, 3)
        assert np.abs(found - expected).max() <= 1

    def test_a_grey_file_has_three_colours(self):
        found = crops.for_training(photograph(0, "L"), 32, np.random.default_rng(0))
        assert found.shape == (32, 32, 3)
        assert (found == found[..., :1]).all()


def distance(a, b):
    """The largest between two empirical distributions."""
    at = np.union1d(a, b)
    share = lambda x: np.searchsorted(np.sort(x), at, side="right") / len(x)
    return np.abs(share(a) - share(b)).max()


@pytest.fixture(scope="module")
def dataset(folder):
    return files.imagenet(folder)


def source(dataset, workers=0):
    """Two epochs of 6 steps of 8 images in chunks of 3, and 13 held-out images in two batches."""
    plan = files.plan_epoch(6, 8, 4, dataset.held_out_images)
    task = streamed.Streamed(classes=1000, steps_per_epoch=6, network=Network(model="resnet50"))
    settings = {"epochs": 2, "size": 32, "seed": 5, "workers": workers}
    return contextlib.closing(stream.Stream(task, dataset, plan, **settings))


def arrays(parts):
    return [(np.asarray(part.images), np.asarray(part.labels)) for part in parts]


@pytest.fixture(scope="module")
def straight(dataset):
    """The parts of two epochs, in the order of training."""
    with source(dataset) as it:
        return [(arrays(it.chunks(epoch, 0)), arrays(it.held_out(epoch))) for epoch in (1, 2)]


class TestStream:
    """What comes when, and that nothing but its place decides it."""

    def test_an_epoch_has_every_image_once_cut_afresh(self, straight, dataset):
        labels = []
        for parts, _ in straight:
            assert [images.shape for images, _ in parts] == 2 * [(3, 8, 32, 32, 3)]
            labels.append(np.concatenate([x.ravel() for _, x in parts]))
            assert sorted(labels[-1]) == list(range(TRAIN))
        assert labels[0].tolist() != labels[1].tolist()
        # The crop of an image by its seed, epoch and record, with no stream.
        photographs = {n: photograph(n) for n in range(TRAIN)}
        source = tfds.builder_from_directory(dataset.folder).as_data_source("train")
        records = {int(example["label"]): i for i, example in enumerate(source)}
        for epoch, (parts, _) in enumerate(straight):
            images, labels = parts[0]
            for image, label in zip(images[0], labels[0], strict=True):
                rng = np.random.default_rng([1, 5, epoch, records[label]])
                np.testing.assert_array_equal(
                    image, crops.for_training(photographs[label], 32, rng)
                )

    def test_all_held_out_images_come_once_and_the_last_fills_up(self, straight):
        for _, parts in straight:
            (first, labels), (second, more) = parts
            assert {first.shape, second.shape} == {(8, 32, 32, 3)}
            found = [*labels, *more]
            assert sorted(found[:HELD_OUT]) == list(range(100, 100 + HELD_OUT))
            assert found[HELD_OUT:] == 3 * [found[HELD_OUT - 1]]
            expected = [crops.for_evaluation(photograph(n), 32) for n in labels]
            np.testing.assert_array_equal(first, expected)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_any_workers_go_on_from_any_part(self, workers, straight, dataset):
        with source(dataset, workers) as it:
            found = arrays(it.chunks(1, 1)), arrays(it.held_out(1)), arrays(it.chunks(2, 0))
        expected = straight[0][0][1:], straight[0][1], straight[1][0]
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(x, y)

    def test_what_fills_up_the_last_batch_is_not_counted(self, dataset):
        logits = np.random.default_rng(0).normal(size=(2, 1, 8, 1000)).astype(np.float32)
        labels = np.arange(16, dtype=np.int32).reshape(2, 1, 8)
        # Right are 4 of the first 13, and what fills up.
        for batch, row in [(0, 0), (0, 3), (1, 0), (1, 4), (1, 5), (1, 6), (1, 7)]:
            logits[batch, 0, row, labels[batch, 0, row]] = 9
        with source(dataset) as it:
            scores = it.aggregate(list(zip(logits, labels, strict=True)))
        assert scores["accuracy"].shape == (1,)
        assert scores["accuracy"][0] == pytest.approx(4 / 13)

    def test_a_process_reads_its_rows_alone(self, straight, dataset):
        plan = files.plan_epoch(6, 8, 4, dataset.held_out_images)
        images = files.Images(dataset, plan, 2, 32, 5, rows=(2, 3, 6, 7), first=1)
        assert len(images) == (2 * 8 - 1) * 4
        whole, labels = straight[0][0][0]
        for place, row in enumerate((2, 3, 6, 7)):
            assert images[place]["label"] == labels[1, row]
            np.testing.assert_array_equal(images[place]["image"], whole[1, row])

    def test_parts_lie_on_the_devices_as_batches_do(self, dataset):
        with MeshConfig(data=4, fsdp=2).use(), source(dataset) as it:
            (part, _), (held_out, _) = it.chunks(1, 0), it.held_out(1)
            shapes = [{x.data.shape for x in task.images.addressable_shards}
                      for task in (part, held_out)]  # fmt: skip
            assert shapes == [{(3, 1, 32, 32, 3)}, {(1, 32, 32, 3)}]

    @pytest.mark.parametrize(
        ("steps", "parts"), [(5004, (12, 417)), (4992, (16, 312)), (7, (7, 1))]
    )
    def test_parts_have_equal_steps(self, steps, parts):
        plan = files.plan_epoch(steps, 256, 16, 50_000)
        assert (plan.steps, plan.chunks) == parts
        assert plan.held_out_batches == 196

    def test_where_there_is_none_the_remedy_is_told(self, tmp_path):
        message = r"not prepared in .*img_val.tar .*tfds build imagenet2012 .*--dataset generated"
        with pytest.raises(FileNotFoundError, match=message):
            files.imagenet(tmp_path)

    def test_a_torn_file_is_named(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        (file,) = tmp_path.glob("imagenet2012/*/*train*array_record*")
        os.truncate(file, file.stat().st_size // 2)
        with pytest.raises(ValueError, match=r"of train\[:48\] in .*imagenet2012.*is torn"):
            files.imagenet(tmp_path).identity()

    def test_a_cut_photograph_is_named(self, tmp_path, monkeypatch):
        whole = photograph
        monkeypatch.setitem(
            globals(), "photograph", lambda n: whole(n)[: -300 if n >= 100 else None]
        )
        Tiny(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
        plan = files.plan_epoch(TRAIN // 8, 8, 1, HELD_OUT)
        images = files.Images(files.imagenet(tmp_path), plan, 1, 32, seed=0, rows=(0,))
        assert images[0]["image"].shape == (32, 32, 3)
        with pytest.raises(
            ValueError, match=r"0 of validation in \S+-of-00001 .*image file is trunc"
        ):
            images[plan.train_batches]

    def test_workers_end_with_the_process_that_trains(self):
        trainer = subprocess.Popen(
            [sys.executable, "-c", TRAINER], stdout=subprocess.PIPE, text=True
        )
        worker = int(trainer.stdout.readline())
        os.kill(worker, signal.SIGTERM)  # Which it leaves to the other.
        assert trainer.poll() is None
        assert running(worker)
        trainer.kill()
        trainer.communicate()
        deadline = time.monotonic() + 20
        while running(worker):
            assert time.monotonic() < deadline
            time.sleep(0.1)


SMALL = (
    "adam-lawn-256 --epochs 2 --warmup-epochs 1 --free-epochs 1 --image-size 32 --width 0.0625"
    " --dtype float32 --batch-size 16 --accumulate 2 --steps-at-once 1 --model vgg5"
)


def command(line, folder):
    """What a command line asks for: two epochs of three updates of two steps, a part each."""
    return imagenet.read_command_line(f"{SMALL} --data-dir {folder} {line}".split())


def train(config):
    task, source = imagenet.make_source(config)
    return training.train(task, config, source=source)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "kernels"), [("vgg5", 5), ("resnet50", 54)])
def test_the_command_on_eight_devices(model, kernels, folder, tmp_path, capsys):
    """From files to a record; XLA takes a minute for ResNet-50."""
    out = tmp_path / "runs.jsonl"
    imagenet.main(command(f"--mesh.data 8 --model {model} --out {out}", folder))
    printed = capsys.readouterr().out
    assert "| accuracy, % " in printed
    assert re.search(
        r"^[\d,]+ images a second, [\d.,]+ ms a train step of 8$", printed, re.MULTILINE
    )
    (record,) = records.read_records(out)
    assert record["device"].startswith("8 x")
    curve = record["curve"]
    assert {"accuracy", "ece", "nll", "held_out_margin_p50", "flat_share"} <= curve.keys()
    # All classes are as likely as any other before much has been learnt.
    assert curve["train_loss"][0] == pytest.approx(math.log(1000), rel=0.1)
    # The schedule and the switch count updates, of which there are three an epoch.
    assert curve["constrained_epochs"] == [0, 1]
    norms = {k: v for k, v in curve.items() if k.startswith("norm/")}
    assert len(norms) == kernels
    for values in norms.values():
        assert values[1] == pytest.approx(values[0], rel=1e-5)


def test_generated_images_need_neither_data_nor_host(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(imagenet, "GENERATED_HELD_OUT", HELD_OUT)
    monkeypatch.setattr(stream.Stream, "__init__", None)
    line = f"--dataset generated --train-images {TRAIN} --mesh.data 8 --first-seed 3"
    config = command(line, tmp_path)
    imagenet.main(config)
    assert re.search(r"^[\d,]+ images a second", capsys.readouterr().out, re.MULTILINE)
    _, source = imagenet.make_source(config)
    (first, *_, last), (held_out, _) = source.chunks(1, 0), source.held_out(1)
    assert first is last
    assert (first.images.shape, held_out.labels.shape) == ((1, 8, 32, 32, 3), (8,))
    assert len(list(source.chunks(2, 4))) == 2


def test_a_run_killed_within_an_epoch_goes_on_to_the_bit(folder, tmp_path, monkeypatch):
    """On eight devices, between the two steps of an update."""
    config = command("--mesh.data 8", folder)
    straight = train(config)
    # From the first part to the fifth of each epoch.
    assert len(straight.chunk_s) == 2 * 4
    config = dataclasses.replace(config, checkpoint_dir=tmp_path)
    train_epoch, begun = training.train_epoch, []

    def terminated(*args):
        begun.append(None)
        if len(begun) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_epoch(*args)

    monkeypatch.setattr(training.loop, "train_epoch", terminated)
    message = f"after chunk 3 of epoch 2 of 2, which {tmp_path} keeps"
    with pytest.raises(distributed.StoppedError, match=message):
        train(config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "1+3", "newest"]
    resumed = train(config)
    assert len(begun) == 12
    assert_same(straight, resumed)
    assert len(resumed.chunk_s) == 1
    with pytest.raises(ValueError, match=r"another run: data is version 5.1.0, 48 \+ 13 images, "):
        train(dataclasses.replace(config, train_images=TRAIN - 1))


@pytest.mark.slow
def test_two_processes_train_as_one(folder, tmp_path, compiled_as_for_users):
    """Each reads its half of every batch, and they compute what one process does."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
    }
    cluster = f"--distributed --coordinator 127.0.0.1:{free_port()} --num-processes 2 --process-id"
    line = f"-m examples.imagenet {SMALL} --data-dir {folder} --out {tmp_path}/two.jsonl {cluster}"
    both = [subprocess.Popen([sys.executable, *f"{line} {i}".split()], env=environment)
            for i in range(2)]  # fmt: skip
    one = train(command("--mesh.data 8", folder))
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    (record,) = records.read_records(tmp_path / "two.jsonl")
    for name, values in one.curve.items():
        np.testing.assert_allclose(record["curve"][name], values[0], rtol=1e-4, atol=1e-5)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(streamed.Streamed):
    """A task without batch statistics."""

    def model(self, rngs):
        """One matrix."""
        return nnx.Linear(48, 4, rngs=rngs)

    def _normalised(self, pixels):
        return pixels.reshape(len(pixels), -1) / 255


@pytest.mark.parametrize("optimizer", ["sgd", "adam_lawn"])
def test_without_batch_statistics_accumulated_steps_are_one_large_one(optimizer):
    """Clipped, with warmup, the switch after one epoch of three: all of these count updates."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (4, 8, 4, 4, 3), np.uint8))
    labels = jnp.asarray(rng.integers(0, 4, (4, 8), np.int32))
    task = Linear(
        classes=4,
        steps_per_epoch=4,
        network=Network(model="none", dtype="float32"),
        label_smoothing=0.1,
    )
    options = {"optimizer": optimizer, "learning_rate": 0.1, "clip_norm": 0.5, "epochs": 3}
    options |= {"warmup_epochs": 0.5, "batch_size": 8, "dataset": "generated"}
    options |= {"free_epochs": 1.0} if optimizer == "adam_lawn" else {}
    states = []
    for k in (1, 4):
        config = imagenet.Config(**options, accumulate=k)
        static, hyperparameters = (
            config.static_options(4),
            jax.tree.map(lambda x: jnp.float32([x]), config.hyperparameters()),
        )
        state = training.init(task, static, hyperparameters, jnp.array([0]))
        cut = [x.reshape(4 * k, 8 // k, *x.shape[2:]) for x in (images, labels)]
        part = dataclasses.replace(task, images=cut[0], labels=cut[1])
        for _ in range(3):
            state, metrics = training.train_epoch(part, static, hyperparameters, state)
        states.append(state)
        if optimizer == "adam_lawn":
            assert metrics["constrained_epochs"] == 2
        counts = optax.tree.get_all_with_path(state.opt_state, "count")
        assert {int(count[0]) for _, count in counts} == {12}
    assert max_difference(states[0].params, states[1].params) < 2e-6
    begin = training.init(task, static, hyperparameters, jnp.array([0]))
    assert max_difference(states[0].params, begin.params) > 0.05


def test_images_are_normalised_by_the_usual_numbers(dataset):
    shown = []
    with source(dataset) as it:
        task = next(it.chunks(1, 0))
        batch = jax.tree.map(lambda x: x[0], task.batches(None))
        network = Network(model="resnet50", dtype="float32")
        task = dataclasses.replace(task, network=network)
        task.loss(lambda x: shown.append(x) or jnp.zeros((8, 1000)), batch)
    scaled = np.asarray(batch[0]) / 255
    # To three digits as published with the first networks of torchvision.
    expected = (scaled - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(shown[0], expected, rtol=1e-5, atol=1e-5)


class TestRecipes:
    """The appendix's settings, and what else the command line may say."""

    def test_each_is_as_the_appendix_says(self):
        read = lambda name: imagenet.read_command_line([name])
        for name in recipes.RECIPES:
            config = read(name)
            assert (config.epochs, config.model, config.image_size) == (90, "resnet50", 224)
            assert config.batch_size == (256 if name.endswith("-256") else 16384)
            assert config.images_in_step == 256
            assert config.clip_norm == (None if name.startswith("sgd") else 1.0)
        sgd = read("sgd-256")
        assert (sgd.momentum, sgd.weight_decay, sgd.warmup_epochs) == (0.875, 1e-4, 0.5)
        assert (sgd.learning_rate, read("sgd-16k").learning_rate) == (0.256, 16.384)
        lamb = read("lamb-plus-256")
        assert (lamb.weight_decay, lamb.warmup_epochs, lamb.learning_rate) == (
            0.01,
            0.16,
            3.5355e-3,
        )
        lawn = read("lamb-lawn-256")
        assert (lawn.weight_decay, lawn.free_epochs) == (0, 0.16)
        assert lawn.learning_rate == lamb.learning_rate

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"accumulate": 3}, r"accumulate=3 must divide batch_size=256"),
            ({"seeds": 2}, r"seeds=2 must be 1.*first_seed"),
            ({"momentum": 1.0}, r"momentum=1.0 must be at least 0 and below 1"),
            ({"image_size": 16}, r"image_size=16 must be at least 32"),
            ({"workers": -1}, r"workers=-1 must be at least 0"),
        ],
    )
    def test_options_that_do_not_fit_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            imagenet.Config(**options)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("--train-images 49", r"train_images=49 must lie between 1 and the 48 there are"),
            ("--train-images 15", r"batch_size=16 must be at most the 15 training images"),
            (
                "--mesh.data 3",
                r"batch_size=16 in accumulate=2 .* 8 images in each, which 3 devices cannot .* 6\.",
            ),
        ],
    )
    def test_what_does_not_fit_the_data_or_devices_is_named(self, line, message, folder):
        with pytest.raises(ValueError, match=message):
            imagenet.make_source(command(line, folder))


def test_a_checkpoint_within_an_epoch_lies_between_those_of_epochs(tmp_path):
    store = checkpoints.Checkpoints(tmp_path, {})
    progress = lambda epoch, parts: checkpoints.Progress(
        epoch, {"w": jnp.float32(10 * epoch + parts)}, {}, 0.0, parts, {"x": np.array([0.1])}
    )
    for place in ((2, 0), (2, 9), (2, 10), (3, 0)):
        store.save(progress(*place))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2+10", "2+9", "3", "newest"]
    (tmp_path / "3" / "progress.json").write_text("")
    found = store.latest(progress(0, 0))
    assert (found.epoch, found.chunks, found.state["w"], found.sums["x"]) == (2, 10, 30, 0.1)
    store.close()
