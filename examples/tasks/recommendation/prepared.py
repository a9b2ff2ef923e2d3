"""Loads a dataset, prepared once as ArrayRecord by a builder of TensorFlow Datasets.

TensorFlow is not needed: the builder writes, and its data source reads, without it.
"""

import contextlib
import functools
import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds

from examples.tasks.recommendation.catalog import DATASETS, checksum
from examples.tasks.recommendation.files import File, download, find
from examples.tasks.recommendation.protocol import Interactions, leave_one_out
from examples.tasks.recommendation.splits import NUM_NEGATIVES, read_split

DatasetName = Literal["movielens-100k", "movielens-1m", "pinterest-20"]

_logger = logging.getLogger(__name__)


def load(
    dataset: DatasetName,
    data_dir: str | None = None,
    *,
    negatives_seed: int = 0,
    cache_dir: str | None = None,
) -> Interactions:
    """Loads a dataset by the leave-one-out protocol of He et al. (2017).

    Users with fewer than 20 interactions are removed, ratings count as interactions whatever
    they say, and each user's latest interaction is held out, of several at the same time the
    last in the file. MovieLens-1M is read from the split that the authors of neural collaborative
    filtering published where it is there, in preference to ``ratings.dat``; Pinterest exists as
    such a split only. A published split is kept as it is, but for the users removed and for pairs
    to train on that repeat or are held out.

    The first call prepares the arrays and keeps them; a later one reads them back, unless a file
    has changed.

    Args:
      dataset: which one.
      data_dir: a folder with the files, or with a folder of the dataset's name that has them:
        ``u.data``, ``ratings.dat`` or GroupLens's zip archive of either; or ``PREFIX.train.rating``
        (or ``PREFIX.train.pairs``), ``PREFIX.test.rating`` and ``PREFIX.test.negative``, PREFIX
        being ``ml-1m`` or ``pinterest-20``. Each may be compressed as ``.xz``. None downloads them.
      negatives_seed: fixes the 99 negatives of each user where none are published, 0 to 2**32 - 1.
      cache_dir: where prepared and downloaded files are kept; by default where TensorFlow Datasets
        keeps them, ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.

    Returns:
      The arrays, read-only.

    Raises:
      ValueError: if a file is empty, truncated or malformed, with its name and line.
      FileNotFoundError: if ``data_dir`` lacks a file.
      ConnectionError: if a file cannot be downloaded.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset {dataset!r} is not known; it is one of {', '.join(DATASETS)}")
    files = None if data_dir is None else find(dataset, data_dir)
    root = Path(cache_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    key = _cache_key(dataset, files, negatives_seed)
    builder = functools.partial(
        InteractionsBuilder,
        dataset=dataset,
        files=files,
        negatives_seed=negatives_seed,
        data_dir=str(root / f"{dataset}-{key}"),
    )
    data = Interactions(dataset=dataset, **_prepared_record(builder, root / "downloads"))
    _log_counts(data)
    return data


def _cache_key(dataset: str, files: Mapping[str, File] | None, negatives_seed: int) -> str:
    """Changes with the content of the files, so that what was prepared is never stale."""
    if files is None:
        sources = {role: remote.checksum for role, remote in DATASETS[dataset].remotes.items()}
    else:
        sources = {role: checksum(file.path) + file.member for role, file in files.items()}
    seed = None if "negatives" in sources else negatives_seed
    text = repr((dataset, sorted(sources.items()), seed))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _prepared_record(
    make_builder: Callable[[], tfds.core.DatasetBuilder], downloads: Path
) -> dict[str, Any]:
    """The one record, which is written first if it is not there."""
    try:
        # TFDS prints its progress; standard output is the caller's.
        with contextlib.redirect_stdout(sys.stderr):
            make_builder().download_and_prepare(download_dir=str(downloads))
    except OSError:
        # Another process may have prepared the same in the meantime.
        if not make_builder().data_path.exists():
            raise
    return make_builder().as_data_source("interactions")[0]


def _download(dataset: str, dl_manager: Any) -> dict[str, File]:
    try:
        return download(dataset, dl_manager.download)
    except (OSError, tfds.download.DownloadError) as error:
        urls = ", ".join(remote.url for remote in DATASETS[dataset].remotes.values())
        raise ConnectionError(
            f"could not download {urls} ({error}): without a network, get the files elsewhere and"
            " give their folder as data_dir"
        ) from error


def _log_counts(data: Interactions) -> None:
    """Says what is missing from the published dataset, since a whole line may be cut off."""
    published = DATASETS[data.dataset].interactions
    if data.num_interactions != published:
        _logger.warning(
            "%s: %d interactions, but %d in the published dataset; the files are truncated or a"
            " part of it, so that results do not compare",
            data.dataset,
            data.num_interactions,
            published,
        )
    if data.removed_users:
        _logger.info("%s: removed %d users", data.dataset, data.removed_users)


# Not registered: `tfds.load` could not give it the files.
class InteractionsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes the arrays of ``Interactions`` as one record, so that to read them is one copy.

    Args:
      dataset: a key of ``DATASETS``.
      files: the files by role, or None to download them.
      negatives_seed: fixes the sampled negatives.
      data_dir: where to write, or None for the default of TensorFlow Datasets.
    """

    VERSION = tfds.core.Version("1.0.0")
    name = "interactions"

    def __init__(
        self,
        *,
        dataset: str,
        files: Mapping[str, File] | None,
        negatives_seed: int,
        data_dir: str | None,
    ):
        self._dataset, self._files, self._negatives_seed = dataset, files, negatives_seed
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            # As bytes: TFDS would otherwise parse the numbers one by one, each of 64 bits.
            "train": tfds.features.Tensor(shape=(None, 2), dtype=np.int32, encoding="bytes"),
            "candidates": tfds.features.Tensor(
                shape=(None, 1 + NUM_NEGATIVES), dtype=np.int32, encoding="bytes"
            ),
            "num_items": np.int64,
            "num_interactions": np.int64,
            "removed_users": np.int64,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Users' interactions with items, split by the leave-one-out protocol.",
            homepage="https://grouplens.org/datasets/movielens",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        files = self._files or _download(self._dataset, dl_manager)
        return {"interactions": self._generate_examples(files)}

    def _generate_examples(self, files: Mapping[str, File]) -> Iterator[tuple[int, dict[str, Any]]]:
        split = read_split(self._dataset, files)
        data = leave_one_out(self._dataset, split, self._negatives_seed)
        yield 0, {name: getattr(data, name) for name in self.info.features}
