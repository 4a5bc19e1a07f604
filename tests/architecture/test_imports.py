"""Imports point down only, stage rooms never import each other, kernels never import Spark."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "clinloom"
LAYERS = [
    {"errors"},
    {"tables", "progress"},
    {"events"},
    {"study", "files"},
    {"guard"},
    {"plugins", "spark", "store", "doctor", "blocks"},
    {"engine", "radiomics"},
    {"sources", "clean", "cohort", "features", "prepare", "models", "evaluate", "report", "synth"},
    {"deploy", "platforms"},
    {"work"},
    {"steps"},
    {"learning", "telling", "scoring"},
    {"run"},
    {"cli"},
    {"__main__"},
]
STAGE_ROOMS = LAYERS[6]
KERNEL_ROOMS = {"clean", "cohort", "features", "radiomics", "evaluate", "report"}
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """The rooms of clinloom that a module imports, anywhere in it."""
    out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clinloom"):
            parts = (node.module or "").split(".")
            out |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            out |= {a.name.split(".")[1] for a in node.names if a.name.startswith("clinloom.")}
    return {name for name in out if name in LEVEL}


MODULES = [p for p in sorted(SOURCE.rglob("*.py")) if p != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path: Path):
    room = room_of(path)
    assert room in LEVEL, f"{room} has no layer: give it one in LAYERS"
    for other in imported(ast.parse(path.read_text())):
        if other != room:
            assert LEVEL[other] <= LEVEL[room], f"{room} imports {other}, which lies above it"
            assert not {room, other} <= STAGE_ROOMS or {room, other} == {"models", "prepare"}, (
                f"stage room {room} imports stage room {other}"
            )


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_kernels_do_not_know_spark(path: Path):
    if room_of(path) in KERNEL_ROOMS:
        names = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        assert not [n for n in names if n.startswith(("pyspark", "py4j"))]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_module_and_public_name_is_documented(path: Path):
    tree = ast.parse(path.read_text())
    if path.name != "__init__.py" or tree.body:
        assert ast.get_docstring(tree), "the module has no docstring"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_the_service_loads_without_spark():
    code = (
        "import sys; import clinloom.deploy.bundle; "
        "assert not [m for m in sys.modules if m.startswith('pyspark')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
