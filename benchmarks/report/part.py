"""Defines what each module of the report returns: sections, findings, missing runs, pictures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from examples.results import tables


class Finding(NamedTuple):
    """Says what was found.

    Attributes:
      what: in words.
      figure: with its spread.
      beside: what it is compared with, with its spread.
      n: how many runs, or windows of time, are behind the figure.
      section: the heading, of one of the pages, that has the table.
    """

    what: str
    figure: str
    beside: str
    n: str
    section: str


class Missing(NamedTuple):
    """Names what was not run.

    Attributes:
      what: in words.
      beside: what the paper reports of it, or what is to be reached.
      command: what runs it.
    """

    what: str
    beside: str
    command: str


class Part(NamedTuple):
    """Holds what a module of the report makes of its records.

    Attributes:
      sections: of the pages by marker, "" where records are missing.
      findings: for the beginning of RESULTS.md.
      missing: for NOT_RUN.md.
      of_readme: sections of the README by marker.
      draw: draws the pictures in a folder.
    """

    sections: Mapping[str, str]
    findings: Sequence[Finding] = ()
    missing: Sequence[Missing] = ()
    of_readme: Mapping[str, str] = MappingProxyType({})
    draw: Callable[[Path], None] = lambda folder: None


def table_of_findings(entries: Sequence[Finding], pages: Mapping[Path, str]) -> str:
    """Return a row per finding, with a link from the first page to its heading in one of them."""
    rows = [(f.what, f.figure, f.beside, f.n, _link(f.section, pages)) for f in entries]
    return tables.markdown(("what", "measured", "beside", "n", "where"), rows)


def table_of_missing(entries: Sequence[Missing]) -> str:
    """Return a row per command."""
    by_command = tables.group(entries, lambda entry: entry.command)
    rows = [
        ("; ".join(e.what for e in alike), "; ".join(e.beside for e in alike if e.beside), f"`{c}`")
        for c, alike in by_command.items()
    ]
    return tables.markdown(("not yet run", "the paper's, or to be reached", "what runs it"), rows)


def sweep_command(*studies: str, data_dir: bool = True) -> str:
    """Return the command that runs studies, with a folder for their data where they need one."""
    command = f"python -m benchmarks.paper.sweep --study {' '.join(studies)}"
    return f"{command} --data-dir DIR" if data_dir else command


def _link(heading: str, pages: Mapping[Path, str]) -> str:
    """Return a link from the first page to a heading in one of them."""
    (page,) = (page for page, text in pages.items() if f"# {heading}\n" in text)
    place = "" if page == next(iter(pages)) else page.name
    anchor = "".join(x for x in heading.lower() if x.isalnum() or x in " -_").replace(" ", "-")
    return f"[{heading}]({place}#{anchor})"
