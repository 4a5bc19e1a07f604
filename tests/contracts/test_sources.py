"""A source of another package, whose units are no files, goes the whole way of acquisition."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clinloom import plugins

PLUGIN = '''
"""A counter: patients are numbers, and each has a pulse."""

from dataclasses import dataclass

import pyarrow as pa
from pydantic import Field

from clinloom.study import SourceModel

REQUIRES = None
LINKS = False


class Options(SourceModel):
    """How far it counts."""

    upto: int = Field(default=10, description="the last patient")


@dataclass(frozen=True)
class Numbers:
    """The patients in [first, last)."""

    name: str
    size: int
    stamp: str
    first: int
    last: int

    def read(self):
        return b""


def plan(options, where):
    for first in range(0, options.upto, 100):
        last = min(first + 100, options.upto)
        yield Numbers(f"{first}", 1 << 15, "", first, last)


def read(units, options, source):
    for unit in units:
        who = [str(n) for n in range(unit.first, unit.last)]
        yield {
            "events": pa.table({
                "patient": who, "code": ["PULSE"] * len(who), "source": [source] * len(who),
                "numeric_value": [float(n) for n in who], "record_id": [unit.name] * len(who),
            }),
            "links": pa.table({"patient": who, "other": who}),
        }
'''
POINTS = "[clinloom.sources]\ncounter = elsewhere_counter\n"
RUN = """
import json, sys
from clinloom import plugins, study
from clinloom.run import acquire
from clinloom.run.work import Work
from clinloom.store import Store
from clinloom.store.stored import stream

def run(upto):
    made = study.parse({**json.loads(sys.argv[2]), "sources": {
        "far": {"type": "counter", "upto": upto}}}, rooms=plugins)
    work = Work(made, Store(sys.argv[1]))
    try:
        tables = acquire.acquire(work, made)
        files = [str(f) for f in tables["acquired"].files()]
        rows = [v for f in files for t in stream(f, ["numeric_value"], 1 << 20)
                for v in t.column(0).to_pylist()]
        return {"rows": sorted(rows), "reused": work.stages[-1]["reused"]}
    finally:
        work.close()

print(json.dumps([run(450), run(450), run(451)]))
"""
STUDY = {
    "name": "tiny",
    "cohort": {"index": {"at": "A"}, "outcome": {"codes": "B", "within": "30d"}},
    "features": ["demographics"],
    "models": ["logistic_regression"],
}


def test_another_packages_source_plans_ranges_of_a_counter(tmp_path: Path):
    package = tmp_path / "package"
    told = package / "elsewhere_counter-1.0.dist-info"
    told.mkdir(parents=True)
    (package / "elsewhere_counter.py").write_text(PLUGIN)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere-counter\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(POINTS)
    paths = [str(package), *sys.path]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "CLINLOOM_SPARK_MASTER": "local[2]",
    }
    command = [sys.executable, "-c", RUN, str(tmp_path / "out"), json.dumps(STUDY)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, again, more = json.loads(done.stdout.splitlines()[-1])
    assert first == {"rows": [float(n) for n in range(450)], "reused": False}
    assert again["reused"] and not more["reused"]
    assert more["rows"][-1] == 450.0


@pytest.mark.parametrize("shared", ["_rows/mapping.py", "_parcel.py"])
def test_a_change_in_what_sources_share_changes_their_stage_key(monkeypatch, shared: str):
    before = plugins.stamp.__wrapped__("sources", "table")
    plain = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda p: plain(p) + (b"#" if p.as_posix().endswith(shared) else b"")
    )
    assert plugins.stamp.__wrapped__("sources", "table") != before
