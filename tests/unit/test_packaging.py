"""What pyproject.toml declares is what the package needs, and every lower bound is tried."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

from packaging.version import Version  # comes with pytest

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DISTRIBUTIONS = {  # where names differ
    "asyncio_throttle": "asyncio-throttle",
    "psycopg_pool": "psycopg",  # as its extra
    "yaml": "pyyaml",
}


def test_lowest_versions_are_the_declared_bounds() -> None:
    pins = dict(
        line.split("==") for line in (REPOSITORY / ".ci/lowest.txt").read_text("utf-8").split()
    )
    for requirement in PROJECT["dependencies"] + EXTRAS["report"] + EXTRAS["test"]:
        name, bound = re.match(r"([a-z0-9-]+)>=([0-9.]+)", requirement).groups()
        assert Version(pins[name]) == Version(bound)


def test_imported_packages_are_declared() -> None:
    imported = {
        module.partition(".")[0]
        for path in (REPOSITORY / "batch").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for module in _modules(node)
    }
    foreign = imported - sys.stdlib_module_names - {"batch"}
    requirements = PROJECT["dependencies"] + EXTRAS["report"] + EXTRAS["fleet"] + EXTRAS["store"]
    declared = {re.match(r"[a-z0-9-]+", requirement)[0] for requirement in requirements}
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} == declared


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
