"""Lists the known datasets: their files' names, limits, public addresses and checksums."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
# A commit, not a branch: its tree names each file by a hash of the content.
_NCF = (
    "https://raw.githubusercontent.com/hexiangnan/neural_collaborative_filtering"
    "/4aab159e81c44b062c091bdaed0ab54ac632371f/Data"
)

Limits = Mapping[str, range]
"""The values that a column may have, by the column's name."""


@dataclasses.dataclass(frozen=True)
class Remote:
    """A public file: its address, and its SHA-256 or Git blob id (`"kind:hex"`)."""

    url: str
    checksum: str

    def verify(self, path: Path) -> None:
        """Raise a ValueError unless the downloaded file has the expected checksum."""
        found = checksum(path, self.checksum.split(":")[0])
        if found != self.checksum:
            raise ValueError(
                f"{path}: downloaded from {self.url}, its checksum is {found}, not"
                f" {self.checksum}; delete the file and try again"
            )


@dataclasses.dataclass(frozen=True)
class RatingLog:
    """Describes GroupLens's file of ratings with timestamps, `archive/name` in `archive.zip`.

    Attributes:
      archive: the name of the zip archive, without its suffix, and of the folder in it.
      name: the name of the file.
      separator: what stands between two columns.
      limits: the values that each column may have.
      sha256: the checksum of the archive.
    """

    archive: str
    name: str
    separator: str
    limits: Limits
    sha256: str

    @property
    def member(self) -> str:
        """The file's name inside the archive."""
        return f"{self.archive}/{self.name}"

    @property
    def remotes(self) -> dict[str, Remote]:
        """The files to download, by role."""
        url = f"{_GROUPLENS}/{self.archive}.zip"
        return {"ratings": Remote(url, f"sha256:{self.sha256}")}


@dataclasses.dataclass(frozen=True)
class PublishedSplit:
    """Describes the split that the authors of neural collaborative filtering (NCF) published.

    Attributes:
      prefix: the part of the files' names before `.train.rating` and the like.
      limits: the values that each column may have.
      blobs: the Git blob id of each file, by role.
    """

    prefix: str
    limits: Limits
    blobs: Mapping[str, str]

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The names that a file may have, by role; `.train.pairs` lacks ratings and times."""
        return {
            "train": (f"{self.prefix}.train.rating", f"{self.prefix}.train.pairs"),
            "test": (f"{self.prefix}.test.rating",),
            "negatives": (f"{self.prefix}.test.negative",),
        }

    @property
    def remotes(self) -> dict[str, Remote]:
        """The files to download, by role."""
        return {
            role: Remote(f"{_NCF}/{self.names[role][0]}", f"git-blob:{blob}")
            for role, blob in self.blobs.items()
        }


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Holds what is known of a dataset before any file is read.

    Attributes:
      interactions: how many the whole dataset has.
      split: its published split, if there is one, which is preferred to the log.
      log: its log of ratings, if there is one.
    """

    interactions: int
    split: PublishedSplit | None = None
    log: RatingLog | None = None

    @property
    def remotes(self) -> dict[str, Remote]:
        """The files to download, by role."""
        source = self.split or self.log
        assert source is not None
        return source.remotes


_STARS = range(1, 6)

DATASETS = {
    "movielens-100k": Dataset(
        interactions=100_000,
        log=RatingLog(
            archive="ml-100k",
            name="u.data",
            separator="\t",
            limits={"user": range(1, 944), "item": range(1, 1683), "rating": _STARS},
            sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        ),
    ),
    "movielens-1m": Dataset(
        interactions=1_000_209,
        split=PublishedSplit(
            prefix="ml-1m",
            limits={"user": range(6040), "item": range(3706), "rating": _STARS},
            blobs={
                "train": "31ba384fd58dac8fbd09d2dfc6616431f3563ab5",
                "test": "1b79e03c96710c3b0c35deb19155ef74f7965a02",
                "negatives": "c82844fb99d021f94751a6f915a230a1e8b8da92",
            },
        ),
        log=RatingLog(
            archive="ml-1m",
            name="ratings.dat",
            separator="::",
            limits={"user": range(1, 6041), "item": range(1, 3953), "rating": _STARS},
            sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        ),
    ),
    "pinterest-20": Dataset(
        interactions=1_500_809,
        split=PublishedSplit(
            prefix="pinterest-20",
            # The files have four columns, but nobody rated: the third is not looked at.
            limits={"user": range(55_187), "item": range(9916)},
            blobs={
                "train": "99813f8ed7486c36fa0f405e3f400db5d6fed0be",
                "test": "87fdbd13bced61c51f2842e2a667e83b9b0084e3",
                "negatives": "b752ccdc14df423b9484771440ff4a73e4a4a304",
            },
        ),
    ),
}


def checksum(path: Path, kind: str = "sha256") -> str:
    """Return `"kind:hex"` of a file, for the kinds `sha256` and `git-blob`."""
    content = path.read_bytes()
    if kind == "sha256":
        return f"sha256:{hashlib.sha256(content).hexdigest()}"
    # Git names a blob by the SHA-1 of a header and the content.
    header = b"blob %d\0" % len(content)
    return f"git-blob:{hashlib.sha1(header + content).hexdigest()}"
