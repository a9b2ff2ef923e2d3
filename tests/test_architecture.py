"""The architecture: which way imports point, what is public, what is documented, what it needs."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import optax
import pytest

import lawn_optax as lo

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lawn_optax"
MODULES = sorted(module.name for module in pkgutil.iter_modules([str(PACKAGE)]))


def imported(path: Path) -> set[str]:
    """Dotted names of all that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{a.name}" for a in node.names}
    return names


def imported_by(module: str) -> set[str]:
    """Dotted names of all that a module imports, or the modules of a package."""
    file = PACKAGE / f"{module}.py"
    return set().union(*map(imported, [file] if file.exists() else (PACKAGE / module).glob("*.py")))


def lines_of_modules() -> dict[str, int]:
    """The line of each module in the docstring of the package."""
    _, order = lo.__doc__.split("only from lines below its own:")
    rows = [(name, i) for i, line in enumerate(order.splitlines(), 1) for name in line.split()]
    return {name: i for name, i in rows if name in MODULES}


def test_the_docstring_of_the_package_orders_all_modules():
    assert sorted(lines_of_modules()) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_lower_ones_only(module):
    line = lines_of_modules()
    for name in imported_by(module):
        package, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if package == "lawn_optax" and other in MODULES and other != module:
            assert line[other] > line[module], f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_the_library_imports_jax_and_optax_alone(module):
    own = {"lawn_optax", "jax", "optax", "numpy"}  # NumPy comes with JAX
    names = {name.split(".")[0] for name in imported_by(module)}
    assert names <= own | set(sys.stdlib_module_names)


ARROWS = {
    "lawn_optax": set(),
    "examples.training": {"lawn_optax"},
    "examples.results": {"lawn_optax", "examples.training"},
    "examples.tasks": {"lawn_optax", "examples.training", "examples.results"},
    "examples": {"lawn_optax", "examples.training", "examples.results", "examples.tasks"},
    "benchmarks.tools": {"lawn_optax", "examples"},
    "benchmarks.measure": {"lawn_optax", "examples", "benchmarks.tools"},
    "benchmarks.paper": {"lawn_optax", "examples", "benchmarks.tools"},
    "benchmarks.report": {"examples", *(f"benchmarks.{x}" for x in ("tools", "measure", "paper"))},
    "benchmarks": {"examples", *(f"benchmarks.{x}" for x in ("tools", "measure", "paper"))},
}


def folder(name: str) -> str:
    """The first of `ARROWS` that a module is in, the innermost folder before the one around it."""
    inner = ".".join(name.split(".")[:2])
    return inner if inner in ARROWS else name.split(".")[0]


def files() -> list[Path]:
    packages = dict.fromkeys(name.split(".")[0] for name in ARROWS)
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_between_folders_point_one_way(path):
    """What a folder of examples or benchmarks may import is in `ARROWS`, with what lies in it."""
    own = folder(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for name in imported(path):
        other = folder(name)
        if name.split(".")[0] == "tests":
            raise AssertionError(f"{path} imports {name}")
        if other in ARROWS and other != own and name not in ("examples", "benchmarks"):
            allowed = ARROWS[own]
            inside = {a for a in allowed if other == a or other.startswith(f"{a}.")}
            assert inside, f"{path} imports {name}: {own} may import {sorted(allowed)} alone"


def test_every_folder_of_code_has_its_arrows():
    assert {folder(".".join(p.relative_to(ROOT).with_suffix("").parts)) for p in files()} == {
        *ARROWS
    }


def public_objects():
    for name in lo.__all__:
        value = getattr(lo, name)
        if not inspect.ismodule(value):
            yield name, value
            continue
        for inner, member in vars(value).items():
            of_ours = getattr(member, "__module__", "").startswith(value.__name__)
            if not inner.startswith("_") and of_ours:
                yield f"{name}.{inner}", member


@pytest.mark.parametrize(("name", "value"), list(public_objects()))
def test_public_names_are_documented(name, value):
    doc = inspect.getdoc(value)
    assert doc, name
    if inspect.isfunction(value):
        arguments = inspect.signature(value).parameters
        assert "Returns:" in doc, name
        for argument in arguments:
            assert f"{argument}:" in doc, f"{name} does not explain {argument}"


def test_the_reference_has_every_public_name_once():
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.rst"))
    documented = re.findall(r"^\.\. auto\w+:: lawn_optax\.(\S+)$", pages, flags=re.MULTILINE)
    modules = [name for name in lo.__all__ if inspect.ismodule(getattr(lo, name))]
    assert sorted(documented) == sorted([*modules, *(name for name, _ in public_objects())])


def test_every_switch_is_named_where_users_look_for_one():
    makes_switch = lambda f: inspect.signature(f).return_annotation is lo.Switch
    switches = {n for n, f in public_objects() if inspect.isfunction(f) and makes_switch(f)}
    assert {"at_step", "at_flattening"} <= switches
    with pytest.raises(TypeError) as error:
        lo.lawn(optax.identity(), "never")
    for text in (lo.__doc__, lo.lawn.__doc__, str(error.value)):
        assert not {name for name in switches if name not in text}, text


def test_all_lists_what_there_is():
    assert sorted(lo.__all__) == lo.__all__
    for name in lo.__all__:
        assert hasattr(lo, name)
    for module in pkgutil.iter_modules(lo.__path__):
        importlib.import_module(f"lawn_optax.{module.name}")


def test_importing_it_starts_no_backend_and_no_framework():
    code = (
        "import sys, lawn_optax, jax;"
        "assert not jax._src.xla_bridge._backends;"
        "assert not {'flax', 'tensorflow', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_it_is_typed():
    assert (PACKAGE / "py.typed").exists()
