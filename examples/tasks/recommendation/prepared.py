"""Loads a dataset, which a builder of TensorFlow Datasets prepares once as ArrayRecord.

TensorFlow is not needed: the builder writes, and its data source reads, without it.
"""

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

from examples.tasks import quiet_tfds
from examples.tasks.recommendation.datasets import DATASETS, checksum
from examples.tasks.recommendation.files import File, download, find
from examples.tasks.recommendation.protocol import Interactions, leave_one_out
from examples.tasks.recommendation.splits import NUM_NEGATIVES, read_split

DatasetName = Literal["movielens-100k", "movielens-1m", "pinterest-20"]

_logger = logging.getLogger(__name__)


def load(
    dataset: DatasetName,
    data_dir: Path | None = None,
    *,
    negatives_seed: int = 0,
    validate: bool = False,
    cache_dir: Path | None = None,
) -> Interactions:
    """Load a dataset by the leave-one-out protocol of He et al. (2017).

    Users with fewer than 20 interactions are removed, every rating counts as an interaction
    whatever its stars, and each user's latest interaction is held out; among several at the same
    time, the last in the file. MovieLens-1M is read from the split that the authors of neural
    collaborative filtering published, or if that is missing from `ratings.dat`; Pinterest exists
    only as such a split. A published split is kept as it is, except that users are removed as
    above and that a pair is trained on once, and not if it is held out.

    The first call prepares the arrays and keeps them; a later one reads them back, unless a file
    has changed. Each call logs a warning for what is odd about the files, such as repeated rows.

    Args:
      dataset: which one.
      data_dir: a folder with the files, or with a folder of the dataset's name that has them:
        `u.data`, `ratings.dat` or GroupLens's zip archive of either; or `PREFIX.train.rating`
        (or `PREFIX.train.pairs`), `PREFIX.test.rating` and `PREFIX.test.negative`, PREFIX
        being `ml-1m` or `pinterest-20`. Each text file may be compressed as `.xz`, `.gz` or
        `.bz2`, and its first line may name the columns. None downloads the files.
      negatives_seed: fixes the 99 negatives of each user where none are published, 0 to 2**32 - 1.
      validate: whether to hold out the interaction before each user's latest as well, to choose
        settings by, as He et al. do; only of a log of ratings, for a split has no order.
      cache_dir: where prepared and downloaded files are kept; by default where TensorFlow Datasets
        keeps them, `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Returns:
      The arrays, read-only.

    Raises:
      ValueError: if a file is empty, truncated or malformed, or has values that cannot be, with
        its name and line; if `validate` is true and the files are a published split.
      FileNotFoundError: if `data_dir` lacks a file.
      ConnectionError: if a file cannot be downloaded.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset {dataset!r} is not known; it is one of {', '.join(DATASETS)}")
    if not 0 <= negatives_seed < 2**32:
        raise ValueError(f"negatives_seed={negatives_seed} must lie between 0 and 2**32 - 1")
    files = None if data_dir is None else find(dataset, data_dir)
    known = DATASETS[dataset]
    if validate and "ratings" not in (known.remotes if files is None else files):
        remedy = f"give data_dir a log, {known.log.name}" if known.log else "take another dataset"
        raise ValueError(
            f"validate=True with dataset={dataset!r}: its published split does not say which"
            f" interaction is the latest but one; {remedy}"
        )
    root = Path(cache_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    key = _cache_key(dataset, files, negatives_seed) + ("-validated" if validate else "")
    builder = functools.partial(
        InteractionsBuilder,
        dataset=dataset,
        files=files,
        negatives_seed=negatives_seed,
        validate=validate,
        data_dir=str(root / f"{dataset}-{key}"),
    )
    record = _prepared_record(builder, root / "downloads")
    record["remarks"] = record["remarks"].decode()
    data = Interactions(dataset=dataset, **record)
    _log_remarks(data)
    return data


def _cache_key(dataset: str, files: Mapping[str, File] | None, negatives_seed: int) -> str:
    """Return a key that changes with the content of the files, so that no cache is stale."""
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
    """Read the one record, and write it first if it is not there."""
    try:
        quiet_tfds.download_and_prepare(make_builder(), download_dir=str(downloads))
    except OSError:
        # Another process may have prepared the same in the meantime.
        if not make_builder().data_path.exists():
            raise
    return make_builder().as_data_source("interactions")[0]


def _download(dataset: str, dl_manager: Any) -> dict[str, File]:
    """Download the public files, or say how to do without."""
    print(f"Downloading {dataset}, which is done once.", file=sys.stderr, flush=True)
    try:
        return download(dataset, dl_manager.download)
    except (OSError, tfds.download.DownloadError) as error:
        urls = ", ".join(remote.url for remote in DATASETS[dataset].remotes.values())
        raise ConnectionError(
            f"could not download {urls} ({error}): without a network, get the files elsewhere and"
            " give their folder as data_dir"
        ) from error


def _log_remarks(data: Interactions) -> None:
    """Log what is odd about the files, and what they lack: whole lines may be cut off."""
    for remark in data.remarks.splitlines():
        _logger.warning("%s", remark)
    published = DATASETS[data.dataset].interactions
    if data.num_interactions != published:
        _logger.warning(
            "%s: %d interactions, but %d in the published dataset; the files are not the whole of"
            " it, or not only it, so results do not compare",
            data.dataset,
            data.num_interactions,
            published,
        )
    if data.removed_users:
        _logger.info("%s: removed %d users", data.dataset, data.removed_users)


# Not registered: `tfds.load` could not give it the files.
class InteractionsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes the arrays of `Interactions` as one record, so that to read them is one copy.

    Args:
      dataset: a key of `DATASETS`.
      files: the files by role, or None to download them.
      negatives_seed: fixes the sampled negatives.
      validate: whether to hold out a second interaction.
      data_dir: where to write, or None for the default of TensorFlow Datasets.
    """

    # A new one where what is written changes, or what is refused.
    VERSION = tfds.core.Version("1.2.0")
    name = "interactions"

    def __init__(
        self,
        *,
        dataset: str,
        files: Mapping[str, File] | None,
        negatives_seed: int,
        validate: bool,
        data_dir: str | None,
    ):
        self._dataset, self._files = dataset, files
        self._negatives_seed, self._validate = negatives_seed, validate
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            # As bytes: TFDS would otherwise parse the numbers one by one, each of 64 bits.
            "train": tfds.features.Tensor(shape=(None, 2), dtype=np.int32, encoding="bytes"),
            "candidates": tfds.features.Tensor(
                shape=(None, 1 + NUM_NEGATIVES), dtype=np.int32, encoding="bytes"
            ),
            "validation": tfds.features.Tensor(
                shape=(None, 1 + NUM_NEGATIVES), dtype=np.int32, encoding="bytes"
            ),
            "num_items": np.int64,
            "num_interactions": np.int64,
            "removed_users": np.int64,
            "remarks": tfds.features.Text(),
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
        data = leave_one_out(self._dataset, split, self._negatives_seed, validate=self._validate)
        yield 0, {name: getattr(data, name) for name in self.info.features}
