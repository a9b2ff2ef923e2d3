"""Commands: how examples and benchmarks read their options, run, and end.

exit code 0     done; or SIGTERM came, and what was trained is saved
exit code 2     a mistake in the options, the data or the installation: one line says which
exit code 130   Ctrl-C

A traceback is for a defect.
"""

import contextlib
import dataclasses
import io
import linecache
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tyro

from examples.training import distributed, jsonl

ROOT = Path(__file__).parent.parent.parent
PICTURES = (".png", ".svg", ".pdf", ".jpg")
OURS = tuple(str(ROOT / package) for package in ("examples", "benchmarks", "lawn_optax"))


def parser(config: type, module: str, about: str | None) -> Callable[[], Any]:
    """Return a function that reads a config from the command line of `python -m module`."""
    return lambda: tyro.cli(config, prog=f"python -m {module}", description=about)


def run(main: Callable[[Any], None], read: Callable[[], Any]) -> None:
    """Read a config and run `main` with it, and end the process in good order."""
    config = None
    try:
        with _plain_log():
            config = _expand_home(_read_in_one_line(read))
            if cluster := getattr(config, "cluster", None):
                distributed.join(cluster)
            if distributed.is_first():
                check_outputs(config)
            main(config)
    except distributed.StoppedError as stopped:
        if distributed.is_first():
            print(stopped, file=sys.stderr)
    except KeyboardInterrupt:
        folder = getattr(config, "checkpoint_dir", None)
        kept = f"the same command goes on from the last checkpoint in {folder}" if folder else ""
        line = f"Interrupted: {kept or 'nothing is kept without --checkpoint-dir'}."
        print(f"\n{line}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has enough; nor can what is left be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (ValueError, TypeError, OSError, ImportError) as error:
        if not is_expected(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def is_expected(error: BaseException) -> bool:
    """Tell a mistake of the user, of the data or of the installation from a defect.

    What the system or the network refuses and a package that is missing are expected, and so is
    what a `raise` in our own code refuses.
    """
    if isinstance(error, (OSError, ImportError)):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not frames[-1].filename.startswith(OURS):
        return False
    source = linecache.getline(frames[-1].filename, frames[-1].lineno or 0)
    return source.lstrip().startswith("raise ")


def one_line(error: BaseException) -> str:
    """Return what an error says, with the remedy where it does not say one."""
    text = " ".join(str(error).split())
    if isinstance(error, ImportError) and "pip install" not in text:
        return f'{text}. Install what the examples need: pip install -e ".[examples]".'
    return text


def _read_in_one_line(read: Callable[[], Any]) -> Any:
    """Read a config; what the parser says of a mistake on standard error becomes one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return read()
    except SystemExit as stopped:
        if stopped.code:
            print(f"error: {out_of_box(said.getvalue())}", file=sys.stderr)
        raise


def _expand_home(config: Any) -> Any:
    """Return a config in whose paths the home folder stands in place of `~`."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    options = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    paths = {name: x.expanduser() for name, x in options.items() if isinstance(x, Path)}
    return dataclasses.replace(config, **paths)


def out_of_box(box: str) -> str:
    """Return in one line what tyro prints in a box: what is wrong, and the options in question."""
    plain = re.sub(r"[│╮╯]", "", re.sub(r"╭.*", "-" * 9, box))
    # The first is the title where the terminal has no UTF-8, and empty where it has.
    title, *blocks = re.split("[─-]{9,}", plain)
    wrong, *rest = (" ".join(block.split()) for block in blocks or [title])
    text = re.sub(r"^Error parsing (Config: )?| Got errors: .*", "", wrong)
    text = " ".join([text, *(block for block in rest if block.startswith("Unrecognized options"))])
    more = "".join(blocks[1:]).splitlines()
    options = [line.split()[0] for line in more if line.strip().startswith("--")]
    if options and "Perhaps you meant" in box:
        text += f". Perhaps you meant {' or '.join(dict.fromkeys(options))}."
    return text


def check_outputs(config: Any) -> None:
    """Refuse places that cannot be written to, before hours of training and not after."""
    for name in ("out", "picture", "checkpoint_dir", "tensorboard"):
        path = getattr(config, name, None)
        if path is None:
            continue
        try:
            folder = path.parent if name in ("out", "picture") else path
            folder.mkdir(parents=True, exist_ok=True)
            if name == "out":
                path.open("a", encoding="utf-8").close()
        except OSError as error:
            message = f"{name}={str(path)!r} cannot be written ({error}): give another."
            raise ValueError(message) from error
        if name == "out":
            jsonl.read(path, needed=("config",))
        if name == "picture" and (path.is_dir() or path.suffix not in PICTURES):
            raise ValueError(f"picture={str(path)!r} must end in one of {', '.join(PICTURES)}.")


@contextlib.contextmanager
def _plain_log() -> Iterator[None]:
    """Let our own warnings reach the terminal as sentences, whatever else configures logging."""
    loggers = [logging.getLogger(package) for package in ("examples", "benchmarks")]
    before = [(logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.propagate, logger.handlers = False, [logging.StreamHandler()]
    try:
        yield
    finally:
        for logger, (propagate, handlers) in zip(loggers, before, strict=True):
            logger.propagate, logger.handlers = propagate, handlers
