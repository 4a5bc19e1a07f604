"""A stream that goes on: what is dropped while it runs is told, and a signal ends it in order."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from tests.contracts.test_stream import counted, told
from tests.service import made

from clinloom import cli
from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import Door
from clinloom.run import checkpoint

PATIENCE = 240  # seconds for a step on a busy machine


class Ward(threading.Thread):
    """Drops files while the stream runs, and at last asks it to end."""

    def __init__(self, root: Path, drops: list[dict[str, list[str]]]):
        super().__init__(daemon=True)
        self.root, self.drops = root, drops
        self.seen: list[int] = []

    def run(self) -> None:
        """A drop, then its predictions; after the last a signal."""
        try:
            for number, files in enumerate(self.drops, 1):
                for name, lines in files.items():
                    beside = self.root / f".{number}"
                    beside.write_text("\n".join(lines))
                    beside.rename(self.root / "in" / name)
                until = time.monotonic() + PATIENCE
                while time.monotonic() < until and len(self.told()) < number:
                    time.sleep(0.1)
                self.seen.append(len(self.told()))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def told(self) -> list[Path]:
        """The files of predictions by now."""
        return list((self.root / "out" / "predictions").glob("0*.parquet"))


@pytest.fixture
def mannerly():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_what_is_dropped_is_told_while_it_runs_and_a_signal_ends_it(
    tmp_path, spark, monkeypatch, capsys, mannerly
):
    resources = [e["resource"] for n in range(4) for e in made.patient(n)["entry"]]
    lines = [json.dumps(resource) for resource in resources]
    late = [line for line in lines if '"Observation"' in line][::2]
    first = [line for line in lines if line not in late]
    drops = [
        {"a b#1.ndjson": first},
        {"again.ndjson": first[::3], "late.ndjson": late, "gone.ndjson": lines},
    ]
    (tmp_path / "in").mkdir()
    bundle = made.publish(tmp_path / "bundle")

    def brought(*asked):
        (tmp_path / "in" / "gone.ndjson").unlink(missing_ok=True)  # when Spark has noted it
        return found(*asked)

    found = checkpoint.brought
    monkeypatch.setattr(checkpoint, "brought", brought)
    ward = Ward(tmp_path, drops)
    ward.start()
    asked = ["--from", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--every", "1s"]
    assert cli.main(["stream", str(bundle), *asked, "--json"]) == 0
    assert ward.seen == [1, 2]
    rows = told(tmp_path / "out" / "predictions")
    loaded = Bundle.load(bundle)
    facts = Door(loaded).fhir(resources, several=True)
    clean = loaded.clean(facts.events, facts.refused)["events"]
    expected = loaded.risks(clean, loaded.moments(clean)["index"]).to_pylist()
    assert counted(rows) == counted([{**row, "withdrawn": False} for row in expected])
    assert expected and json.loads(capsys.readouterr().out)["rows"] == len(rows)
    refused = told(tmp_path / "out" / "rejected")
    unread = [row["file"] for row in refused if row["reason"] == "unreadable_file"]
    assert unread == ["gone.ndjson"]
