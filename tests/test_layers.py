"""Imports go one way: what is deep in the library knows nothing of what stands on it."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "marginax"

# For each part, what it may import of the library. A part may always import from itself.
MAY_IMPORT = {
    "errors": set(),
    "arrays": {"errors"},
    "jaxpr": {"errors"},
    "elimination": set(),
    "blocks": {"errors", "arrays", "jaxpr"},
    "language": {"errors", "arrays"},
    "distributions": set(),
    "density": {"errors", "arrays", "jaxpr", "language", "distributions"},
    "graph": {"errors", "arrays", "jaxpr", "elimination", "language", "density"},
    "marginal": {
        "errors",
        "arrays",
        "jaxpr",
        "elimination",
        "blocks",
        "language",
        "density",
        "graph",
    },
    "handlers": {"language"},
    "numpyro_models": {"errors", "language"},
    "testing": {"errors", "jaxpr", "language", "density", "graph"},
    "optim": set(),
    "storage": set(),
    "infer": {
        "errors",
        "arrays",
        "jaxpr",
        "elimination",
        "blocks",
        "language",
        "density",
        "graph",
        "marginal",
        "optim",
        "storage",
    },
    "mixture": {"jaxpr", "language", "marginal", "infer", "storage"},
    "pages": set(),
    "report": {"jaxpr", "mixture", "infer", "pages", "storage"},
    "serve": {"", "mixture"},
    "tutorial": {"language", "marginal", "infer", "distributions", "pages", "storage"},
    "cli": {
        "",
        "errors",
        "jaxpr",
        "graph",
        "marginal",
        "infer",
        "storage",
        "mixture",
        "report",
        "serve",
        "tutorial",
    },
}


def imports_of(path: Path) -> list[str]:
    """Modules of the library that a file imports, below ``marginax.``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "marginax":
            found.append((node.module or "").removeprefix("marginax").removeprefix("."))
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("marginax.")]
            found += [name.removeprefix("marginax.") for name in names]
    return found


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_a_part_imports_only_what_lies_below_it(part: str):
    files = [SOURCE / f"{part}.py", *(SOURCE / part).rglob("*.py")]
    for path in files:
        if path.exists():
            parts = {module.split(".")[0] for module in imports_of(path)} - {part}
            assert parts <= MAY_IMPORT[part], path


def test_every_part_is_in_the_table():
    parts = {p.stem if p.is_file() else p.name for p in SOURCE.iterdir()}
    assert parts - {"__init__", "__pycache__", "py"} == set(MAY_IMPORT)


def test_contributors_are_told_the_same():
    text = (SOURCE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("| part |") :].partition("\n\n")[0].splitlines()[2:]
    above: set[str] = set()
    for row in table:
        _, first, _, third, _ = row.split("|")
        parts, told = (re.findall(r"`([a-z_]+)(?:/|\.py)`", cell) for cell in (first, third))
        told = {*told, *above} if "the above" in third else {*told}
        told -= {"elimination"} if "never `elimination/`" in third else set()
        for place, part in enumerate(parts):
            allowed = MAY_IMPORT[part] - {""}  # the version
            before = set(parts[:place]) if "each other" in third else set()
            assert allowed <= told | before, part
            assert "the above" in third or allowed == told, part
        above |= set(parts)
    assert above == set(MAY_IMPORT)


def test_the_oracle_shares_nothing_past_the_sites_with_what_it_checks():
    shared = {m for m in imports_of(SOURCE / "testing.py") if m.startswith(("graph", "density"))}
    assert shared <= {"graph.sites", "density.distribution_layers"}


def test_everything_that_is_imported_is_a_declared_dependency():
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    declared = {re.split(r"[<>=]", one)[0] for one in project["project"]["dependencies"]}
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")]
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    # Polars is imported only where someone has given a frame of its own.
    names -= {"marginax", "polars", *sys.stdlib_module_names}
    packages = {
        "sklearn": "scikit-learn",
        "arviz_stats": "arviz-stats",
        "pydantic_core": "pydantic-core",
    }
    assert {packages.get(name, name) for name in names} <= declared


def test_no_private_module_of_jax_is_imported():
    for path in SOURCE.rglob("*.py"):
        assert "jax._src" not in path.read_text(encoding="utf-8"), path
