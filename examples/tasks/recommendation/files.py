"""Finds the files of a dataset in a folder, or downloads them, and unpacks them."""

import bz2
import dataclasses
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from examples.tasks.recommendation.datasets import DATASETS, Dataset, PublishedSplit, RatingLog

_UNPACK = {".xz": lzma.decompress, ".gz": gzip.decompress, ".bz2": bz2.decompress}
_UNPACK_ERRORS = (lzma.LZMAError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError)


@dataclasses.dataclass(frozen=True)
class File:
    """A file on disk, plain or compressed, or a member of a zip archive."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        """The file's own name, without the folder."""
        return self.member or self.path.name

    def read(self) -> bytes:
        """Return the unpacked content, or raise a ValueError if it cannot be unpacked."""
        content = self.path.read_bytes()
        try:
            if self.member:
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    return archive.read(self.member)
            return _UNPACK.get(self.path.suffix, bytes)(content)
        # Of an OSError, gzip and bz2 make their own; the file itself has been read by then.
        except (*_UNPACK_ERRORS, OSError) as error:
            raise ValueError(
                f"{self}: cannot be unpacked ({error}); the file is truncated or is not what"
                " its name says: fetch it again"
            ) from error


def find(dataset: str, data_dir: Path) -> dict[str, File]:
    """Find a dataset's files in a folder, or in a subfolder named after the dataset.

    Args:
      dataset: a key of `DATASETS`.
      data_dir: the folder.

    Returns:
      The files by role: `ratings`, or `train`, `test` and perhaps `negatives`.

    Raises:
      FileNotFoundError: if a needed file is missing.
    """
    known = DATASETS[dataset]
    folders = [data_dir, data_dir / dataset]
    folders += [data_dir / known.log.archive] if known.log else []
    for folder in folders:
        if known.split and (files := _find_split(folder, known.split)):
            return files
    for folder in folders:
        if known.log and (file := _find_log(folder, known.log)):
            return {"ratings": file}
    problem = (
        f"data_dir={data_dir} is a file, not a folder"
        if data_dir.is_file()
        else (f"no file of {dataset} in {', '.join(map(str, folders))}")
    )
    raise FileNotFoundError(
        f"{problem}: give a folder with {_wanted(known)} (plain, or compressed as"
        f" {', '.join(_UNPACK)}), or leave out data_dir to download"
    )


def download(dataset: str, fetch: Callable[[dict[str, str]], Mapping[str, str]]) -> dict[str, File]:
    """Download a dataset's public files, and check them.

    Args:
      dataset: a key of `DATASETS`.
      fetch: takes `{role: url}`, returns `{role: path}`.

    Returns:
      The files by role: `ratings`, or `train`, `test` and `negatives`.

    Raises:
      ValueError: if a file does not have the expected checksum.
    """
    remotes = DATASETS[dataset].remotes
    fetched = fetch({role: remote.url for role, remote in remotes.items()})
    paths = {role: Path(path) for role, path in fetched.items()}
    for role, remote in remotes.items():
        remote.verify(paths[role])
    log = DATASETS[dataset].log
    member = log.member if log and "ratings" in paths else ""
    return {role: File(path, member) for role, path in paths.items()}


def _find_split(folder: Path, split: PublishedSplit) -> dict[str, File]:
    """Return the split's files in a folder: none, or at least those to train and to test on."""
    found = {role: _first(folder, names) for role, names in split.names.items()}
    files = {role: file for role, file in found.items() if file}
    missing = [" or ".join(split.names[role]) for role in ("train", "test") if not found[role]]
    if files and missing:
        raise FileNotFoundError(
            f"{folder} has {next(iter(files.values())).path.name} but not"
            f" {' nor '.join(missing)}: put the split's files there together"
        )
    return files


def _find_log(folder: Path, log: RatingLog) -> File | None:
    """Return the log in a folder, unpacked or in its archive."""
    archive = File(folder / f"{log.archive}.zip", log.member)
    return _first(folder, (log.name,)) or (archive if archive.path.is_file() else None)


def _first(folder: Path, names: tuple[str, ...]) -> File | None:
    """Return the first of the names that is there, plain or compressed."""
    paths = (folder / (name + suffix) for name in names for suffix in ("", *_UNPACK))
    return next((File(path) for path in paths if path.is_file()), None)


def _wanted(dataset: Dataset) -> str:
    """Return the names of the files that would do, for an error message."""
    split = [", ".join(names[0] for names in dataset.split.names.values())] if dataset.split else []
    log = [dataset.log.name, f"{dataset.log.archive}.zip"] if dataset.log else []
    return "; or ".join(split + log)
