"""What a stream tells step by step is what a batch of all that came tells, without Spark."""

from __future__ import annotations

import datetime as dt
import json
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.service import made

from clinloom import files
from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import Door
from clinloom.events import NEVER, STATIC
from clinloom.run import kept, score
from clinloom.run.kept import HISTORY, REFUSALS, WAITING, Asked, Bucket, Held
from clinloom.spark.receipts import Writing
from clinloom.tables import ACQUIRED, REFUSED, REJECTED, STREAMED, conform

DAY = 86_400_000_000
NOW = 1_900_000_000_000_000  # microseconds, long after every patient of these


class Ward:
    """One bucket of a stream, of a bundle: what it keeps, and what it told so far."""

    def __init__(self, folder, bundle):
        self.folder, self.bundle = files.address(folder), bundle
        self.held = {HISTORY.name: (), REFUSALS.name: ()}
        self.waiting, self.due = None, NEVER
        self.version, self.now, self.told, self.refused = 0, 0, {}, 0

    def step(self, events=ACQUIRED.empty, refused=REFUSED.empty, *, now=NOW, gone=(), **asked):
        """Take rows at a present; how many predictions that told."""
        self.version += 1
        tables = {}
        for table, rows in ((HISTORY, events), (REFUSALS, refused)):
            if "own" not in rows.column_names:
                rows = rows.append_column("own", rows.column("subject_id"))
            fresh = self._written({table.name: table}, {table.name: kept.joined([rows])})
            tables[table.name] = Held(self.held[table.name], fresh.get(table.name, ()))
        study = self.bundle.resolved
        more = (study.cohort, study.clean, self.bundle.units, self.version, self.now, now)
        ask = Asked(str(self.bundle.place), self.bundle.mark, *more, **asked)
        names = {t.name: t for t in (HISTORY, REFUSALS, WAITING)}
        names |= {"predictions": STREAMED, "told": REJECTED}
        with Writing(dict.fromkeys(names, self.folder), names, 7) as writing:
            self.due, merged = kept.advance(Bucket(tables, self.waiting, gone), ask, writing)
        wrote = self._files(writing)
        for name, held in tables.items():
            every = (*held.files, *held.fresh, *wrote.get(name, ()))
            self.held[name] = tuple(each for each in every if each[0] not in merged)
        self.waiting = next((file for file, _ in wrote.get("waiting", ())), None)
        self.now = now
        rows = [r for file, _ in wrote.get("predictions", ()) for r in _read(file)]
        for row in rows:
            self.told[row["subject_id"], row["prediction_time"]] = row
        self.refused += sum(rows for _, rows in wrote.get("told", ()))
        return len(rows)

    def _written(self, tables, rows):
        with Writing(dict.fromkeys(tables, self.folder), tables, 7) as writing:
            writing.write(rows)
        return self._files(writing)

    def _files(self, writing):
        parts = writing.parts().items()
        return {name: ((str(self.folder / part.file), part.rows),) for name, part in parts}

    @property
    def risks(self):
        """What counts of all that was told."""
        rows = self.told.values()
        return _risks(row for row in rows if not row["withdrawn"])


def _read(file):
    return kept.read(file, coded=False).to_pylist()


def _risks(rows):
    names = ("subject_id", "prediction_time", "predicted_boolean_probability")
    return sorted(tuple(row[name] for name in names) for row in rows)


def facts(bundle, numbers):
    found = [Door(bundle).fhir(made.body(n)) for n in numbers]
    events = pa.concat_tables([conform(one.events, ACQUIRED) for one in found])
    return events, pa.concat_tables([conform(one.refused, REFUSED) for one in found])


def batch(bundle, events, refused, now=NOW):
    cleaned = bundle.clean(events.sort_by([("subject_id", "ascending")]), refused)["events"]
    cohort = bundle.resolved.cohort
    told = {"bundle": str(bundle.place), "mark": bundle.mark, "cohort": cohort}
    found = score.scored(cleaned, **told, last=None, now=now)
    return _risks(found["predictions"].to_pylist()) if "predictions" in found else []


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return Bundle.load(made.publish(tmp_path_factory.mktemp("kept") / "bundle"))


@pytest.fixture
def ward(tmp_path, bundle) -> Ward:
    return Ward(tmp_path, bundle)


def test_in_whatever_order_and_however_often_events_come_the_risks_are_those_of_a_batch(
    ward, bundle, monkeypatch
):
    monkeypatch.setattr(kept, "AT_ONCE", 4)
    monkeypatch.setattr(kept, "SPAN", 100)
    monkeypatch.setattr(kept, "GROUP", 50)
    events, refused = facts(bundle, range(12))
    random = Random(5)
    rows = [*range(events.num_rows), *random.choices(range(events.num_rows), k=100)]
    random.shuffle(rows)
    for number in range(9):
        some, some_refused = rows[number::9], list(range(number, refused.num_rows, 9))
        ward.step(events.take(pa.array(some)), refused.take(pa.array(some_refused, pa.int64())))
        taken = pa.array(sorted({row for n in range(number + 1) for row in rows[n::9]}))
        given = [i for i in range(refused.num_rows) if i % 9 <= number]
        now = events.take(taken), refused.take(pa.array(given, pa.int64()))
        assert ward.risks == batch(bundle, *now)
    assert len(ward.risks) >= 8
    assert len(ward.held["history"]) < 5 and sum(n for _, n in ward.held["history"]) == len(rows)
    told, refusals = dict(ward.told), ward.refused
    assert ward.step(events) == 0 and ward.told == told and ward.refused == refusals


def test_a_moment_that_is_none_any_more_is_withdrawn_and_may_come_again(ward, bundle):
    events, refused = facts(bundle, [3])
    ward.step(events, refused)
    [(subject, when, risk)] = ward.risks
    body = json.loads(made.body(3))
    stay = next(e for e in body["entry"] if e["resource"]["resourceType"] == "Encounter")
    stay["resource"] |= {"status": "entered-in-error", "meta": {"lastUpdated": "2030-01-01"}}
    wrong = Door(bundle).fhir(json.dumps(body).encode())
    assert ward.step(refused=conform(wrong.refused, REFUSED)) == 1
    assert ward.risks == [] and ward.told[subject, when]["withdrawn"]
    assert ward.told[subject, when]["predicted_boolean_probability"] == risk
    stay["resource"] |= {"status": "finished", "meta": {"lastUpdated": "2031-01-01"}}
    ward.step(conform(Door(bundle).fhir(json.dumps(body).encode()).events, ACQUIRED))
    assert ward.risks == [(subject, when, risk)]


def test_a_moment_is_told_when_it_is_due_though_nothing_comes(ward, bundle):
    events, refused = facts(bundle, [4])
    [(_, when, _)] = expected = batch(bundle, events, refused)
    moment = int(when.timestamp()) * 1_000_000
    last = max(t for t in events.column("time").cast("int64").to_pylist() if t is not None)
    assert moment < last
    early = events.filter(pc.less(pc.fill_null(events.column("time"), when), when))
    assert ward.step(early, refused, now=moment - 1) == 0 and ward.due == moment
    assert ward.step(now=moment - 1) == 0
    assert ward.step(now=moment) == 1 and ward.due == NEVER
    ward.step(events, now=last)
    assert ward.risks == expected


def test_dates_that_lie_ahead_count_as_in_a_batch_until_they_have_passed(ward, bundle):
    events, refused = facts(bundle, [4])
    [(_, when, _)] = batch(bundle, events, refused)
    moment = int(when.timestamp()) * 1_000_000
    stay = pc.starts_with(events.column("code").cast(pa.string()), "ENCOUNTER")
    begun = events.filter(stay).column("time").cast("int64")[0].as_py()
    ahead = pc.less(pc.fill_null(events.column("time"), when), when - dt.timedelta(hours=1))
    some = events.filter(ahead)
    planned = some.filter(stay.filter(ahead)).slice(0, 1)
    place = planned.schema.get_field_index("time")
    time = pa.array([when - dt.timedelta(minutes=30)], planned.schema.field(place).type)
    code = pa.array(["LOINC//0000-0"], planned.schema.field("code").type)
    planned = planned.set_column(place, planned.schema.field(place), time)
    at = planned.schema.get_field_index("code")
    some = pa.concat_tables([some, planned.set_column(at, planned.schema.field(at), code)])
    born = pc.starts_with(some.column("code").cast(pa.string()), "MEDS_BIRTH")
    first = pc.min(some.filter(pc.invert(born)).column("time").cast("int64")).as_py()
    ward.step(some, now=first - 400 * DAY)  # all but the birth lies ahead
    passed = ward.due
    for now in (passed - 1, passed, begun, moment - DAY // 48, moment - 1, moment):
        assert ward.risks == batch(bundle, some, REFUSED.empty, now=ward.now)
        assert bool(ward.risks) == (ward.now < passed)
        ward.step(now=now)
        assert ward.due == NEVER or ward.due > now
    assert ward.risks == batch(bundle, some, REFUSED.empty, now=moment) != []


def test_who_turns_out_to_be_another_takes_the_events_along(ward, bundle):
    events, refused = facts(bundle, [5, 6])
    one, other = sorted(set(events.column("subject_id").to_pylist()))
    own = events.column("subject_id")
    ward.step(events.append_column("own", own), refused)
    told = ward.risks
    at = events.schema.get_field_index("subject_id")
    field = events.schema.field(at)
    mine = events.filter(pc.equal(own, other))
    moved = mine.set_column(at, field, pa.repeat(one, mine.num_rows)).append_column(
        "own", mine.column("subject_id")
    )
    unit = {"moved": [(other, other, one)]}
    unit |= {name: [file for file, _ in held] for name, held in ward.held.items()}
    found = pa.concat_tables([p["events"] for p in kept.relocated(unit) if "events" in p])
    assert kept.joined([conform(found, HISTORY)]) == kept.joined([conform(moved, HISTORY)])
    ward.step(found, gone=((other, other),))
    assert {subject for subject, *_ in ward.risks} == {one} and len(told) == 2
    alone = events.set_column(at, field, pa.repeat(one, events.num_rows))
    assert ward.risks == batch(bundle, alone, REFUSED.empty)
    assert sum(rows for _, rows in ward.held["history"]) == events.num_rows


def test_what_no_later_moment_can_see_is_let_go_and_what_was_told_stands(ward, bundle):
    events, refused = facts(bundle, range(6))
    ward.step(events, refused)
    told, held = ward.risks, sum(n for _, n in ward.held["history"])
    mark = int(np.median([when.timestamp() for _, when, _ in told])) * 1_000_000
    assert ward.step(events, since=mark, horizon=mark) == 0 and ward.risks == told
    left = pa.concat_tables([kept.read(f, coded=False) for f, _ in ward.held["history"]])
    assert left.num_rows < 3 * held
    lasting = pc.is_in(left.column("code"), pa.array(kept.LASTING))
    assert lasting.to_pylist().count(True) >= 6
    time = left.filter(pc.invert(lasting)).column("time").cast("int64").fill_null(STATIC)
    assert not kept.passed(left, mark).any() and time.to_numpy().max() >= mark
    assert ward.risks == told
