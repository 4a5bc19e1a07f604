"""What a run refuses or moves most of is said first, on the command line as in the report."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from clinloom import files
from clinloom.errors import DataError
from clinloom.run import api, dataset, record, tallies
from clinloom.tables import COUNTS, LEDGER, UNITS

SOURCES = {name: SimpleNamespace(type="table") for name in ("lab", "adt")}
READ = [{"table": "events", "source": "lab", "rows": 40}]
REFUSED = [
    {"table": "rejected", "source": "lab", "stage": "acquire", "reason": "no_time", "rows": 30},
    {
        "table": "rejected",
        "source": "lab",
        "stage": "clean",
        "reason": "impossible_time",
        "rows": 70,
    },
]
LINE = (
    "sources.lab: 100 of 140 records were refused, mostly as impossible_time"
    " (time that no patient can have): does the study fit the data?"
)


class Held:
    """A committed table that holds these rows."""

    def __init__(self, table):
        self.table = table

    def read(self):
        return self.table


class Out:
    def write(self, *_, **__):
        pass


def cleaned(monkeypatch, counts) -> list[str]:
    """What the step of cleaning notes, where its workers answer with these counts."""
    said = []
    monkeypatch.setattr(dataset.cleaning, "units_of", lambda *_: UNITS.empty)
    made = {"counts": COUNTS.rows(counts), "ledger": LEDGER.empty}
    monkeypatch.setattr(dataset.workers, "by_patient", lambda *_, **__: made)
    work = SimpleNamespace(
        spark=None,
        keys={"acquire": ""},
        progress=SimpleNamespace(note=said.append),
        step=lambda name, do, **_: do(Out()),
    )
    held = {"acquired": None, "acquisition_rejected": None, "acquisition_units": Held(UNITS.empty)}
    held |= {"acquisition_counts": Held(COUNTS.empty)}
    study = SimpleNamespace(sources=SOURCES, clean={})
    with pytest.raises(DataError, match="cleaning refused every event that has a time"):
        dataset.clean(work, study, held)
    return said


def test_what_cleaning_refuses_of_most_of_a_source_is_said_on_the_command_line(monkeypatch):
    assert cleaned(monkeypatch, [*READ, *REFUSED]) == [LINE]
    few = [{"table": "events", "source": "lab", "rows": 400}, *REFUSED]
    assert cleaned(monkeypatch, few) == []
    before = [{**REFUSED[0], "rows": 300}]  # acquisition has said so
    assert cleaned(monkeypatch, [*READ, *before]) == []


def finished(monkeypatch, tmp_path, counts, ledger=()):
    """A finished run of these counts."""
    (tmp_path / "run.json").write_text('{"kinds": {"lab": "table"}}')
    (tmp_path / "metrics.json").write_text(
        '{"selected": "a", "models": {"a": {"test": {"auroc":'
        ' {"value": 0.8, "low": 0.7, "high": 0.9}}}}}'
    )
    tables = {"counts": Held(COUNTS.rows(counts)), "preparation_ledger": Held(LEDGER.empty)}
    tables["ledger"] = Held(LEDGER.rows(ledger))
    monkeypatch.setattr(record, "finished", lambda _: tables)
    return api.Run(files.address(tmp_path))


def test_a_runs_result_says_it_before_any_number(monkeypatch, tmp_path):
    summary = finished(monkeypatch, tmp_path, [*READ, *REFUSED]).summary()
    assert next(iter(summary.items())) == ("warnings", [LINE])
    assert "warnings" not in finished(monkeypatch, tmp_path, READ).summary()


def test_a_source_of_which_most_events_are_moved_is_said(monkeypatch, tmp_path):
    told = {"source": "lab", "code": "LOINC//2160-0", "rule": "no_release"}
    moved = [
        {**told, "action": "timed_by_sample", "count": 20},
        {**told, "rule": "released_early", "action": "timed_by_sample", "count": 5},
        {**told, "action": "timed_by_delay", "count": 100},  # the study says so
    ]
    [line] = finished(monkeypatch, tmp_path, READ, moved).summary()["warnings"]
    assert line.startswith("sources.lab: most events (25) do not tell when they were known, or")
    assert line.endswith("mostly as timed_by_sample (result timed by its sample)")
    events = {"source": "lab", "rule": tallies.EVENTS_OF, "action": "", "count": 40}
    assert list(tallies.moved(["lab"], LEDGER.rows([events, *moved]))) == [line]
    assert not list(tallies.moved(["lab"], LEDGER.rows([events, *moved[1:]])))
