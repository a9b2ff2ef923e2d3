"""Text to learn from: the sources of Python's standard library, or files of your own.

file 1, 0, file 2, 0, ..., file k, 0 | file k + 1, 0, ...          train | held out

The files come in an order that is random and yet always the same, by a hash of their names, so that
the last of them, which are held out, are as the others. A zero byte, which no text has, ends each.
"""

import fnmatch
import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from examples.tasks import standard_library

END = b"\0"
# Tables that a program wrote, and what the build left.
NO_TEXT = ("encodings/*", "_sysconfigdata*")


class Corpus(NamedTuple):
    """Text, split.

    Attributes:
      train: to train on.
      held_out: to evaluate on.
      files: how many there are of both.
      checksum: of all the text, to tell one corpus from another.
    """

    train: bytes
    held_out: bytes
    files: int
    checksum: str


def load(place: Path | None = None, held_out_share: float = 0.02) -> Corpus:
    """Read the text and split it.

    Args:
      place: a file, or a folder of which every file is read but those whose name begins with a dot
        and those that hold a zero byte; None for the running Python's standard library, its tests
        and tables left out: some 10 MB of code and documentation.
      held_out_share: of the bytes, rounded up to whole files; the end of the text if there is
        one file.

    Raises:
      FileNotFoundError: if there is no such place, or a Python without its sources.
      ValueError: if there is no text in it, or too little to split.
    """
    texts = standard_texts() if place is None else own_texts(place)
    ends = [text + END for _, text in sorted(texts.items(), key=lambda item: _order(item[0]))]
    whole = b"".join(ends)
    cut = split_at([len(text) for text in ends], held_out_share)
    if not 0 < cut < len(whole):
        raise ValueError(
            f"data_dir={place} has {len(whole)} bytes, too few to hold out a share of"
            f" {held_out_share}: give more text."
        )
    return Corpus(whole[:cut], whole[cut:], len(texts), f"{zlib.crc32(whole):08x}")


def standard_texts() -> dict[str, bytes]:
    """Return the modules of the standard library by name."""
    folder = standard_library.folder()
    texts = {
        name: path.read_bytes()
        for name, path in standard_library.modules(folder).items()
        if not any(fnmatch.fnmatch(name, pattern) for pattern in NO_TEXT)
    }
    if not texts:
        raise standard_library.missing(folder)
    return _without_zeros(texts)


def own_texts(place: Path) -> dict[str, bytes]:
    """Return the files of a folder by name, or the one file."""
    if not place.exists():
        raise FileNotFoundError(f"data_dir={place} is not there: give a file or a folder of text.")
    if place.is_file():
        texts = {place.name: place.read_bytes()}
    else:
        names = {path: path.relative_to(place) for path in place.rglob("*") if path.is_file()}
        hidden = lambda name: any(part.startswith(".") for part in name.parts)
        texts = {n.as_posix(): path.read_bytes() for path, n in names.items() if not hidden(n)}
    if not (found := _without_zeros(texts)):
        raise ValueError(f"data_dir={place} holds no text: give a file or a folder of text.")
    return found


def split_at(sizes: list[int], held_out_share: float) -> int:
    """Return how many bytes to train on.

    Args:
      sizes: of the files, in their order.
      held_out_share: of their sum, which the files held out have at least.
    """
    if len(sizes) == 1:
        return round((1 - held_out_share) * sizes[0])
    wanted, held_out = held_out_share * sum(sizes), 0
    for size in reversed(sizes):
        if held_out >= wanted:
            break
        held_out += size
    return sum(sizes) - held_out


def _without_zeros(texts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Leave out what is empty or no text."""
    return {name: text for name, text in texts.items() if text and END not in text}


def _order(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
