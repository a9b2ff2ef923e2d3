"""The running Python's standard library: sources to learn from, without a download."""

import sysconfig
from pathlib import Path

SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages"}


def folder() -> Path:
    """Return where the library is."""
    return Path(sysconfig.get_path("stdlib"))


def modules(folder: Path) -> dict[str, Path]:
    """Return the modules in a folder by name, in its order, its own tests left out."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*.py"))}
    return {name.as_posix(): path for name, path in paths.items() if not SKIPPED & set(name.parts)}


def missing(folder: Path) -> FileNotFoundError:
    """Return the error for a Python that came without its sources."""
    return FileNotFoundError(
        f"{folder} holds no modules to learn from: this Python keeps its standard library"
        " elsewhere, or without its sources; use another one."
    )
