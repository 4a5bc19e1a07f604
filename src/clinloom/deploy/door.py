"""One door: whatever comes in a request is read, cleaned, scored or refused as in batch.

A :class:`Door` is made once of a loaded bundle, and every front asks it::

    door = Door(Bundle.load(address))
    facts = door.fhir(body)                      # FHIR R4: JSON, or decoded resources
    facts = door.events(rows)                    # or events (ACQUIRED): a table, or dictionaries
    answer = door.score(facts, at=None)          # the study's moments that are due, or one moment
    answer.predictions                           # PREDICTIONS, a row a patient and moment
    answer.values                                # their features (n, f): what `explain` asks for
    answer.patients[subject_id]                  # what the request calls the patient

FHIR goes through the kernel of the study's own FHIR source (its preferred codes, zone, statuses …),
and on through cleaning, moments, features and risk of :class:`clinloom.deploy.bundle.Bundle`.
Nothing is guessed: what cannot be scored safely raises :class:`Refusal`, whose ``reason`` is one of
``REASONS`` and whose message holds no patient's value.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import events as ev
from clinloom import plugins
from clinloom.deploy import _searches, _whose
from clinloom.deploy.bundle import Bundle, acquired
from clinloom.errors import ClinloomError, DataError
from clinloom.features import Feature
from clinloom.files import Given
from clinloom.identity import names, records
from clinloom.identity.subjects import hashed
from clinloom.tables import ACQUIRED, BIRTH, DEATH, FLOW, INDEX, REFUSED, conform, tally

REQUEST = "request.json"  # what refusals call the bytes of a request
GZIP = b"\x1f\x8b"
REASONS = {
    "no_source": ("the bundle's study has no FHIR source", "send events"),
    "several_sources": ("the bundle's study has several FHIR sources", "serve it with --source"),
    "malformed_json": ("this is not JSON, or not UTF-8", None),
    "malformed_resource": ("a resource is not as FHIR R4 has it", "see the type and the position"),
    "not_a_resource": ("something names no resourceType", None),
    "incomplete_search": (
        "a search's answer has further pages, or fewer entries than its total",
        "send all of its pages in one request",
    ),
    "malformed_events": ("the events are not as the events table has them", None),
    "no_patient": ("no patient is told of", "name the patient in `subject`, as Patient/id"),
    "several_patients": ("more than one patient is told of", "send a request for each"),
    "other_patient": ("it tells of another patient than the one asked for", None),
    "placeholder_patient": ("a patient's identifier stands for nobody", "name the patient"),
    "all_refused": ("every resource or event was refused", "see the reasons"),
    "unreadable_fact": (
        "a fact that the model leans on cannot be read",
        "mend its unit, code or time; the study's `clean` tells which are known",
    ),
    "nothing_known": ("nothing that the model reads is known of the patient at that moment", None),
    "malformed_moment": ("`at` is an instant with a zone, as 2026-11-28T12:00:00Z", None),
}
WHOLLY = (  # a part of the request may be anything, or anybody's
    "malformed_json",
    "malformed_resource",
    "not_a_resource",
    "no_patient",
    "placeholder_patient",
)
MISTYPED = (TypeError, ValueError, AttributeError)
UNREADABLE = frozenset({"unknown_unit", "several_units", "ambiguous_date", "invalid_date"})


class Refusal(ClinloomError):
    """A request that cannot be scored safely.

    ``reason``: one of REASONS; ``counts``: what was refused within it, by reason; ``positions``:
    the bytes of the request at which refused resources start.
    """

    def __init__(
        self,
        reason: str,
        *,
        where: str | None = None,
        counts: Mapping[str, int] | None = None,
        positions: Sequence[int] = (),
    ):
        message, mend = REASONS[reason]
        super().__init__(message, where=where, mend=mend)
        self.reason, self.counts, self.positions = reason, dict(counts or {}), tuple(positions)


@dataclass(frozen=True)
class Facts:
    """What a request tells: ``events`` (ACQUIRED), ``refused`` (REFUSED) by its source, and how it
    calls its ``patients`` by their subjects."""

    events: pa.Table
    refused: pa.Table = field(default_factory=lambda: REFUSED.empty)
    patients: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The risks of a request.

    ``predictions`` (PREDICTIONS, n rows); ``values`` (n, f): their features; ``patients``: what the
    request calls each subject; ``refused``: what was not taken, by reason; ``unscored``: the
    patients of several who cannot be scored safely, and why; ``flow``: how many moments each step
    of the cohort left, so that it is plain why there is no prediction; ``events`` (EVENTS): what
    cleaning left.
    """

    predictions: pa.Table
    values: np.ndarray
    patients: Mapping[int, str]
    refused: Mapping[str, int]
    unscored: Mapping[int, Refusal]
    flow: Mapping[str, int]
    events: pa.Table

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The predictions as dictionaries."""
        listed: list[dict[str, Any]] = self.predictions.to_pylist()
        return listed


class Door:
    """A bundle, ready to read requests: what can be made once is made here.

    ``source``: which FHIR source of the study its requests are like, where there are several.
    ``leans``: the codes of the features that the model uses.
    """

    def __init__(self, bundle: Bundle, *, source: str | None = None):
        self.bundle, self._asked = bundle, source
        used = bundle.scorer.importance(len(bundle.features)) > 0
        features = zip(bundle.features, used.tolist(), strict=True)
        self.leans: frozenset[str] = frozenset(f.code for f, some in features if some)

    @property
    def features(self) -> Sequence[Feature]:
        """The model's features, in the order of the columns of ``Answer.values``."""
        return self.bundle.features

    @property
    def blank(self) -> np.ndarray:
        """Features (1, f) of a patient of whom nothing is known."""
        return np.full((1, len(self.features)), np.nan)

    @cached_property
    def _fhir(self) -> tuple[Any, Any, names.Naming]:
        """The kernel of the study's FHIR source, its options, and how its patients are called."""
        found = {n: o for n, o in self.bundle.resolved.sources.items() if o.type == "fhir"}
        if self._asked is not None:
            found = {n: o for n, o in found.items() if n == self._asked}
        if len(found) != 1:
            raise Refusal("several_sources" if found else "no_source")
        [(name, options)] = found.items()
        kind = plugins.load("sources", "fhir")
        naming = names.namings({name: (options.own_system, kind.LINKS)})[name]
        return kind, options, naming

    def fhir(
        self,
        resources: bytes | Sequence[Any],
        *,
        subject: str | None = None,
        several: bool = False,
    ) -> Facts:
        """Read FHIR R4: a Bundle, a resource, an array or lines of them, as JSON or decoded.

        ``subject``: the reference of the patient who is meant, such as ``Patient/1``; of nobody
        else may anything be told. Without it exactly one patient may be told of, or any number
        where ``several``. Raises Refusal.
        """
        kind, options, naming = self._fhir
        data = resources if isinstance(resources, bytes) else msgspec.json.encode(resources)
        if data.startswith(GZIP):
            raise Refusal("malformed_json")
        if not _searches.whole(data):
            raise Refusal("incomplete_search")
        parcels = list(kind.read([Given(REQUEST, data)], options, naming.source))
        refused = _joined(p["rejected"] for p in parcels if "rejected" in p)
        _wholly(refused)
        keys = _whose.keys(parcels)
        made = [names.named(parcel, naming) for parcel in parcels]
        refused = _joined(p["rejected"] for p in made if "rejected" in p)
        _wholly(refused)
        own = hashed(names.texts(naming.own, pa.array(keys, pa.string())))
        true = _whose.true([p["links"] for p in made if "links" in p], own)
        patients = _whose.called(keys, true, subject)
        if subject is not None and subject not in keys:
            raise Refusal("no_patient" if not keys else "other_patient")
        if not patients:
            raise Refusal("no_patient")
        if len(patients) > 1 and not several:
            raise Refusal("several_patients" if subject is None else "other_patient")
        moved = {o: t for o, t in zip(own.tolist(), true, strict=True) if o != t}
        given = [_whose.moved(p["events"], moved) for p in made if "events" in p]
        events = pa.concat_tables(given).unify_dictionaries() if given else ACQUIRED.empty
        told = REFUSED.empty
        if refused is not None:
            told = conform(_whose.moved(refused, moved), REFUSED)
        if len(patients) > 1:
            told = records.corrected(events, told)
        return Facts(events, told, patients)

    def events(self, events: Any) -> Facts:
        """Take events as :meth:`Bundle.predict` does, of one patient or many. Raises Refusal."""
        try:
            table = acquired(events)
        except (DataError, pa.ArrowException, ArithmeticError, *MISTYPED):
            raise Refusal("malformed_events") from None
        subjects = np.unique(table.column("subject_id").to_numpy())
        if not len(subjects):
            raise Refusal("no_patient")
        return Facts(table, patients={number: str(number) for number in subjects.tolist()})

    def score(self, facts: Facts, at: dt.datetime | None = None) -> Answer:
        """The risks at the study's moments that are due, or at ``at``, an instant with a zone.

        Raises Refusal where nobody can be scored safely.
        """
        if at is not None and at.tzinfo is None:
            raise Refusal("malformed_moment")
        refused = tally(records.refusals(facts.refused).column("reason"))
        made = self.bundle.clean(facts.events, facts.refused, ledger=False)
        refused += tally(made["rejected"].column("reason"))
        unscored = self._unreadable(facts, made["rejected"])
        clean = _without(made["events"], unscored)
        if not clean.num_rows and not unscored:
            raise Refusal("all_refused" if refused else "no_patient", counts=refused)
        told = set(ev.subjects(facts.events).tolist())
        for number in facts.patients.keys() - unscored.keys() - set(ev.subjects(clean).tolist()):
            unscored[number] = Refusal("all_refused" if number in told else "nothing_known")
        found = self.bundle.moments(clean, at) if clean.num_rows else {"index": INDEX.empty}
        index = found["index"]
        values = self.bundle.values(clean, index)
        unscored |= self._unknown(clean, index, values)
        if unscored:
            if len(unscored) >= len(facts.patients):
                first = next(iter(unscored.values()))
                raise Refusal(first.reason, where=first.where, counts=refused)
            kept = _others(index, unscored)
            index, values = index.filter(pa.array(kept)), values[kept]
        flow = found.get("flow", FLOW.empty)
        steps = zip(*(flow.column(n).to_pylist() for n in ("name", "rows")), strict=True)
        predictions = self.bundle.scored(index, values)
        about = facts.patients, refused, unscored, dict(steps), clean
        return Answer(predictions, values, *about)

    def _unreadable(self, facts: Facts, rejected: pa.Table) -> dict[int, Refusal]:
        """The patients of whom a fact that the model or its cohort leans on cannot be read.

        That somebody died, at no time that is told, is one for every model.
        """
        found: dict[int, Refusal] = {}
        codes = pc.unique(rejected.column("code")).drop_null().to_pylist()
        asked = ev.matching(codes, self.bundle.resolved.cohort.codes)
        leans = self.leans.union(compress(codes, asked))
        for table, reasons in ((facts.refused, None), (rejected, UNREADABLE)):
            names = ("subject_id", "code", "reason", "field")
            told = zip(*(table.column(name).to_pylist() for name in names), strict=True)
            for subject, code, reason, at in told:
                always = code in (BIRTH, DEATH) if reasons is None else code in leans
                if subject is not None and always and (reasons is None or reason in reasons):
                    where = f"{code}: {reason}" + (f" in {at}" if at else "")
                    refusal = Refusal("unreadable_fact", where=where)
                    found.setdefault(subject, refusal)
        return found

    def _unknown(self, clean: pa.Table, index: pa.Table, values: np.ndarray) -> dict[int, Refusal]:
        """The patients of whom nothing that the model reads is known at their moments."""
        missing = np.isnan(values)
        empty = (missing | (values == 0)).all(axis=1)
        if not empty.any():
            return {}
        subject, moment = ev.subjects(index), ev.times(ev.column(index, "prediction_time"))
        begin, end = ev.located(ev.subjects(clean), subject)
        time = ev.times(ev.column(clean, "time"))
        before = ev.bisect(time, begin, end, moment) > begin
        lost = empty & (missing.any(axis=1) | ~before)
        return {number: Refusal("nothing_known") for number in subject[lost].tolist()}


def _joined(tables: Iterable[pa.Table]) -> pa.Table | None:
    listed = list(tables)
    return pa.concat_tables(listed) if listed else None


def _wholly(refused: pa.Table | None) -> None:
    """Raise Refusal for what refuses the request as a whole."""
    told = set(refused.column("reason").to_pylist()) if refused is not None else ()
    for reason in WHOLLY:
        if refused is not None and reason in told:
            counts = tally(refused.column("reason"))
            rows = refused.filter(pc.equal(refused.column("reason"), reason))
            at = [p for p in rows.column("position").to_pylist() if p is not None]
            where = ", ".join(f"byte {p}" for p in at[:5]) or None
            raise Refusal(reason, where=where, counts=counts, positions=at)


def _others(rows: pa.Table, but: Iterable[int]) -> np.ndarray:
    return ~np.isin(ev.subjects(rows), np.fromiter(but, np.int64))


def _without(rows: pa.Table, but: Mapping[int, Any]) -> pa.Table:
    """The rows of other subjects than these."""
    return rows.filter(pa.array(_others(rows, but))) if but else rows
