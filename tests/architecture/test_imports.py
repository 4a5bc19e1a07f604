"""The laws of the house, each with a case that must fail: what imports what, and who does what."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "clinloom"
GROUND = {
    "errors",
    "checks",
    "hashing",
    "tables",
    "events",
    "history",
    "plugins",
    "vocabulary",
    "zones",
}
STAGES = {
    "sources",
    "audit",
    "clean",
    "cohort",
    "features",
    "models",
    "evaluate",
    "report",
    "synth",
}
KERNELS = {"audit", "clean", "cohort", "features", "radiomics", "evaluate", "report"}
LAYERS = [  # from the ground up; a room imports its own layer's rooms or those below
    {"errors", "checks", "hashing", "vocabulary"},
    {"tables"},
    {"zones"},
    {"events", "history"},
    {"files"},
    {"study"},
    {"plugins"},
    {"guard"},
    {"store"},
    {"spark"},
    {"learn", "identity", "radiomics"},
    STAGES,
    {"deploy"},
    {"outputs"},
    {"run"},
    {"platforms"},
    {"doctor", "tasks", "sending", "validating", "watching", "cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
SPARKLESS = KERNELS | {"deploy", "store", "files", "guard", "study"} | GROUND
# pyspark inside functions only: the service, or a client without Spark, loads them
LAZY = {"sources", "models", "outputs", "identity", "platforms"}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """Every module that is imported anywhere, as the parts of its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((*node.module.split("."), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)


def running(tree: ast.Module) -> ast.Module:
    """The module without what only a type checker reads."""
    kept = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return ast.Module(body=kept, type_ignores=[])


def top(tree: ast.Module) -> ast.Module:
    """What is imported when the module is: nothing within functions."""
    imports = (ast.Import, ast.ImportFrom)
    return ast.Module(body=[n for n in tree.body if isinstance(n, imports)], type_ignores=[])


def names(tree: ast.AST) -> set[str]:
    """Every attribute and name that the code uses."""
    found = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    return found | {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


def faults(room: str, module: tuple[str, ...], text: str) -> list[str]:
    """Every law that a module of ``room`` (its file's parts: ``module``) breaks."""
    tree = ast.parse(text)
    run = running(tree)
    out = []
    for parts in imported(tree):
        if parts[0] != "clinloom" or len(parts) < 2 or parts[1] not in LEVEL:
            continue
        other = parts[1]
        if LEVEL[other] > LEVEL[room]:
            out.append(f"{room} imports {other}, which lies above it")
        if other != room and {room, other} <= STAGES:
            out.append(f"stage room {room} imports stage room {other}")
        if other != room and any(p.startswith("_") and p[1:2] != "_" for p in parts[2:]):
            out.append(f"{room} imports a private part of {other}: {'.'.join(parts)}")
    spark = [p for p in imported(run) if p[0] in ("pyspark", "py4j")]
    if spark and room in SPARKLESS:
        out.append(f"{room} knows Spark")
    if room in LAZY and any(p[0] in ("pyspark", "py4j") for p in imported(top(run))):
        out.append(f"{room} loads Spark when it is imported")
    used = names(tree)
    if used & {"mapInArrow", "mapInPandas", "applyInArrow", "pandas_udf", "udf"} and module != (
        "spark",
        "workers",
    ):
        out.append("only spark/workers.py hands data to Python workers")
    if used & {"_jvm", "_jsc", "_sc", "sparkContext", "rdd"} and room != "spark":
        out.append("only spark/ knows the JVM and the context")
    if used & {"ParquetWriter", "write_table"} and room != "store":
        out.append("only store/ writes tables")
    if "fsspec" in {p[0] for p in imported(tree)} and room != "files":
        out.append("only files/ opens storage")
    return out


MODULES = [p for p in sorted(SOURCE.rglob("*.py")) if p != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_the_house_keeps_its_laws(path: Path):
    room = room_of(path)
    assert room in LEVEL, f"{room} has no layer: give it one in LAYERS"
    module = path.relative_to(SOURCE).with_suffix("").parts
    assert faults(room, module, path.read_text()) == []


@pytest.mark.parametrize(
    ("place", "text", "told"),
    [
        ("features/new", "from clinloom import evaluate", "imports stage room evaluate"),
        ("features/new", "from clinloom.report import render", "imports stage room report"),
        ("audit/new", "from clinloom import features", "imports stage room features"),
        ("clean/new", "from clinloom.run import api", "lies above it"),
        ("store/new", "from clinloom.spark import workers", "lies above it"),
        ("deploy/new", "def f():\n    import pyspark", "knows Spark"),
        ("features/new", "import pyspark.sql", "knows Spark"),
        ("models/new", "from pyspark.ml import Pipeline", "loads Spark when it is imported"),
        ("platforms/new", "from pyspark.sql import SparkSession", "loads Spark when it is"),
        ("run/new", "from clinloom import platforms", "lies above it"),
        ("run/new", "from clinloom.models import _forest", "a private part of models"),
        ("run/new", "frame.mapInArrow(f, 'a int')", "hands data to Python workers"),
        ("learn/new", "spark._jvm.System", "knows the JVM"),
        ("run/new", "import pyarrow.parquet as pq\npq.write_table(t, 'x')", "writes tables"),
        ("sources/new", "import fsspec", "opens storage"),
    ],
)
def test_a_law_that_is_broken_is_told(place: str, text: str, told: str):
    parts = tuple(place.split("/"))
    assert any(told in fault for fault in faults(parts[0], parts, text))


def test_what_only_types_need_is_no_fault():
    text = "if TYPE_CHECKING:\n    from pyspark.sql import DataFrame"
    assert faults("store", ("store", "new"), text) == []


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
