"""Images from a dataset of TensorFlow Datasets, written here, and images that are made up."""

import importlib.util
import io
import os
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from examples.tasks import quiet_tfds
from examples.tasks.images import data

SIZES = {"train": 12, "test": 5}


def picture(value):
    """A file of one colour."""
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(file, "PNG")
    return io.BytesIO(file.getvalue())


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What TFDS writes for CIFAR-100, smaller: the colour of an image says which it is."""

    VERSION = tfds.core.Version("3.0.2")
    name = "cifar100"
    classes = 100

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(num_classes=self.classes),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        train, test = (0, SIZES["train"]), (100, SIZES["test"])
        return {k: self._generate_examples(*v) for k, v in {"train": train, "test": test}.items()}

    def _generate_examples(self, first, count):
        for value in range(first, first + count):
            yield value, {"image": picture(value), "label": value % self.classes}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    prepare(folder)
    return folder


def prepare(folder, **options):
    """Writes the dataset as its users' files are written."""
    builder = Tiny(data_dir=str(folder), file_format="array_record")
    quiet_tfds.download_and_prepare(builder, **options)


def colours(images):
    """Of images of one colour each."""
    assert (images.pixels.shape[1:], images.pixels.dtype) == ((32, 32, 3), np.uint8)
    assert images.labels.dtype == np.int32
    assert (images.pixels == images.pixels[:, :1, :1, :1]).all()
    values = images.pixels[:, 0, 0, 0]
    np.testing.assert_array_equal(values % 100, images.labels)
    return values.tolist()


def test_a_prepared_dataset_is_read(prepared):
    images = data.load("cifar100", prepared)
    assert sorted(colours(images.train)) == list(range(12))
    assert sorted(colours(images.held_out)) == list(range(100, 105))
    assert images.classes == 100


def test_a_torn_file_is_named(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (file,) = tmp_path.glob("cifar100/*/*test*array_record*")
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"cifar100.* cannot be read .*is torn or missing"):
        data.load("cifar100", tmp_path)


def test_of_several_files_the_torn_one_is_named(tmp_path):
    prepare(tmp_path, download_config=tfds.download.DownloadConfig(num_shards=3))
    files = sorted(tmp_path.glob("cifar100/*/*train*array_record*"))
    os.truncate(files[1], 100)
    with pytest.raises(
        ValueError, match=r"image \d+ of train in \S+-00001-of-00003 cannot be read"
    ):
        data.load("cifar100", tmp_path)


def test_a_broken_image_is_named(tmp_path, monkeypatch):
    whole = picture
    broken = lambda value: io.BytesIO(b"no image") if value == 104 else whole(value)
    monkeypatch.setitem(globals(), "picture", broken)
    prepare(tmp_path)
    with pytest.raises(ValueError, match=r"image \d of test in \S+array_record\S+ .*cannot ident"):
        data.load("cifar100", tmp_path)


def test_a_label_of_no_class_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Tiny, "classes", 104)
    prepare(tmp_path)
    with pytest.raises(ValueError, match=r"of test in \S+ .*the label 10[0-3] is not one of 0 to"):
        data.load("cifar100", tmp_path)


def test_another_format_is_told(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (info,) = tmp_path.glob("cifar100/*/dataset_info.json")
    text = info.read_text()
    for changed in (text.replace("array_record", "tfrecord"), text[:40]):
        info.write_text(changed)
        with pytest.raises(
            ValueError, match=r"is not in ArrayRecord \(.*\): .*tfds build cifar100"
        ):
            data.load("cifar100", tmp_path)


def test_nothing_of_the_lines_and_bars_of_tfds(tmp_path, capfd):
    prepare(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_validation_is_the_end_of_the_training_set_and_a_subset_its_beginning(prepared):
    whole = colours(data.load("cifar100", prepared).train)
    images = data.load("cifar100", prepared, train_images=6, validation_images=4)
    assert colours(images.train) == whole[:6]
    assert colours(images.held_out) == whole[8:]


@pytest.mark.parametrize("sizes", [(0, 0), (9, 4), (None, 12), (None, -1)])
def test_more_images_than_there_are(prepared, sizes):
    train, validation = sizes
    message = rf"train_images={train} and validation_images={validation} do not fit the 12"
    with pytest.raises(ValueError, match=message):
        data.load("cifar100", prepared, train_images=train, validation_images=validation)


def test_without_data_and_tensorflow_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r"cifar10 is not prepared in .*tfds build cifar10 .*--dataset generated"
    with pytest.raises(FileNotFoundError, match=message):
        data.load("cifar10", tmp_path)


def test_without_a_network_the_remedy_is_told(tmp_path, monkeypatch, capfd):
    def download(builder):
        raise ConnectionError("no network")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
    with pytest.raises(ConnectionError, match=r"could not download cifar10 \(no network\).*tfds"):
        data.load("cifar10", tmp_path)
    assert "Downloading and preparing cifar10" in capfd.readouterr().err


def test_generated_images_can_be_told_apart():
    train, test, classes = data.load("generated")
    assert (len(train.labels), len(test.labels), classes) == (2000, 500, 10)
    means = np.stack([train.pixels[train.labels == k].mean(0) for k in range(classes)])
    distances = np.square(test.pixels[:, None] - means[None]).sum(axis=(2, 3, 4))
    assert (distances.argmin(1) == test.labels).mean() > 0.99
