"""Few are few patients, however often each is scored; a card counts once; alarms are words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.properties import test_alarms as hospital

from clinloom import cli, files
from clinloom.evaluate import alarms, outcomes, watch
from clinloom.evaluate.watch import Patients, Seen
from clinloom.report import watched
from clinloom.run import feedback, reference


def period(*, each: int, having: int):
    """What is told of 100 patients, each scored so often, of whom some have the outcome."""
    known = hospital.reference(np.random.default_rng(0), each=1, rows=400, tests=300)
    made = hospital.drawn(np.random.default_rng(1), 100 * each, each=each)
    made["period"] = np.zeros(100 * each, int)
    made["outcome"] = made["subject"] < np.unique(made["subject"])[having]
    rows = hospital.told(made)
    rows = rows._replace(flagged=rows.outcome)
    pieces = [rows._replace(**{n: v[at] for n, v in rows._asdict().items()}) for at in
              (slice(0, 50 * each), slice(50 * each, None))]  # fmt: skip
    sums = [watch.sums(piece, known.risk.cells, 0.0) for piece in pieces]
    found = {name: merge([one[name] for one in sums]) for name, merge in watch.MERGES.items()}
    [told] = alarms.judge(known, found, labels={0: "a"})["periods"]
    return told


@pytest.mark.parametrize(("each", "having", "shown"), [(1, 4, 0), (1, 5, 1), (4, 4, 0), (4, 5, 1)])
def test_outcomes_and_flags_are_told_of_five_patients_and_not_of_five_moments(each, having, shown):
    told = period(each=each, having=having)
    assert (told["observed"] is not None) == (told["flagged"] is not None) == bool(shown)


def of(having: int, lacking: int, *, each: int) -> Seen:
    known, positive = each * (having + lacking), each * having
    patients = Patients(having=having, lacking=lacking)
    return Seen(known, known=known, positive=positive, patients=patients)


@pytest.mark.parametrize(("each", "having", "shown"), [(1, 4, False), (4, 4, False), (4, 5, True)])
def test_a_bundle_keeps_subgroups_of_five_patients_and_not_of_five_moments(each, having, shown):
    sexes = [reference.Group("sex", name, 0, 0.0, 1.0) for name in ("sex a", "sex b")]
    known = [*zip(sexes, (of(having, 40, each=each), of(40, 40, each=each)), strict=True)]
    assert bool(reference._showable(known)) == shown


@pytest.mark.parametrize(("each", "marked", "kept"), [(1, 3, 2), (6, 3, 12), (6, 0, 0), (6, 5, 30)])
def test_a_bundle_keeps_flags_of_few_patients_as_those_of_half_as_many(each, marked, kept):
    for sides in ((marked, 90), (90, marked)):
        patients = Patients(*sides)
        seen = Seen(each * sum(sides), flagged=each * sides[0], patients=patients)
        told = reference._flagged(seen)
        assert kept == (told if sides[0] == marked else seen.rows - told)


@pytest.mark.parametrize("sides", [(1, 6), (6, 1)])
def test_no_more_rows_are_told_as_flagged_than_there_are(sides):
    rows = [100 if patients == 1 else patients for patients in sides]
    seen = Seen(sum(rows), flagged=rows[0], patients=Patients(*sides))
    assert 0 <= reference._flagged(seen) <= seen.rows


@pytest.mark.parametrize(("each", "rest", "hidden"), [(1, 4, True), (4, 4, True), (4, 5, False)])
def test_subgroups_do_not_tell_of_few_patients_whom_they_leave_out(each, rest, hidden):
    groups = [of(30, 60, each=each), of(20, 60, each=each)]
    assert outcomes._few(groups, [of(50 + rest, 120, each=each)]) == hidden
    assert outcomes._few(groups, [of(50, 120 + rest, each=each)]) == hidden
    assert not outcomes._few(groups, [of(50, 120, each=each)])


def test_a_card_counts_once_as_it_was_told_of_last(tmp_path):
    line = {"outcomeTimestamp": "2026-01-03T10:00:00Z", "outcome": "accepted"}
    lines = [{**line, "card": f"c{n}"} for n in range(20)]
    later = {
        "at": "2026-01-04T10:00:00+00:00",
        "outcome": "overridden",
        "reason": {"code": "known"},
    }
    lines += [{**later, "card": f"c{n}"} for n in range(8)] * 2
    lines += [{**line, "card": "c0"}] * 3  # posted again, of before
    file = tmp_path / "feedback" / "a.jsonl"
    file.parent.mkdir()
    file.write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "c0.json").write_text('{"card": "c0"}\n')
    none = feedback.counted(files.address(tmp_path / "cards"), "month")
    assert none == {"periods": [], "reasons": [], "unreadable": 0}  # so far
    for place in (file, tmp_path):
        found = feedback.counted(files.address(place), "month")
        [month] = found["periods"]
        assert (month["cards"], month["overridden"]) == (20, 0.4)
        assert found["reasons"] == [{"code": "known", "cards": 8}] and not found["unreadable"]


def test_reasons_are_counted_up_to_so_many_kinds(tmp_path, monkeypatch):
    monkeypatch.setattr(feedback, "CODES", 2)
    line = {"outcomeTimestamp": "2026-01-03T10:00:00Z", "outcome": "overridden"}
    lines = [
        {**line, "card": f"{n}", "overrideReason": {"reason": {"code": code}}}
        for n, code in enumerate("aaaaaabbbbbbbcdefghij")
    ]
    file = files.address(tmp_path / "feedback.jsonl")
    files.write(file, "\n".join(map(json.dumps, lines)).encode())
    told = feedback.counted(file, "month")["reasons"]
    assert told == [{"code": c, "cards": n} for c, n in (("other", 8), ("b", 7), ("a", 6))]


def test_an_alarm_is_told_in_words(capsys):
    told = {"what": "measurements|LOINC//2160-0|last|24h", "period": "2026-01", "p": 1e-6}
    found = [
        {**told, "kind": "inputs", "found": {"psi": 0.31, "ks": None}, "expected": 0.0},
        {**told, "kind": "missing", "found": None, "expected": 0.25},
        {"kind": "codes", "what": "X//1", "period": None, "found": 9, "expected": "<5", "p": 0.01},
    ]
    lines = list(watched.lines(found))
    assert (
        lines[0].startswith("A feature's values are distributed unlike") and "PSI 0.31" in lines[0]
    )
    assert lines[1].endswith("in 2026-01: not told, of few, was 25.0%")
    assert lines[2].endswith("X//1: 9, was <5")
    assert not any(word in line for line in lines for word in ("None", "{", "|"))
    cli._show({"verdict": "alarm", "alarms": lines}, as_json=False)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 4 and shown[1] == f"{'alarms':<12} {lines[0]}"
