"""A chunk of patients as FHIR R4 resources, a line each, with the dirt that real exports hold.

Resources as a bulk export writes them (FHIR R4; Bulk Data Access 2.0). What happens after the
index time is there too, and tells the outcome: a study that lets it in will look too good.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from clinloom.synth._population import DAY, DELAY, DIRTY, HOUR, Measured, Population
from clinloom.synth._risk import OUTCOME, SIGNALS, Signal

LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
ICD, RXNORM = "http://hl7.org/fhir/sid/icd-10-cm", "http://www.nlm.nih.gov/research/umls/rxnorm"
ACTS = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
STANDING = "http://terminology.hl7.org/CodeSystem/condition-clinical"
NUMBERS = "urn:oid:2.16.840.1.113883.19.5"  # HL7's example root
TYPES = (
    "Patient",
    "Encounter",
    "Condition",
    "Observation",
    "MedicationRequest",
    "Procedure",
    "ImagingStudy",
)
TROPONIN = "6598-7"
CREATININE = next(s for s in SIGNALS if s.loinc == "2160-0")
MALFORMED, LATE = 0.004, 0.03


def record_number(number: int, *, second: bool = False) -> str:
    """A patient's medical record number; ``second``: the one of the emergency department."""
    return f"{'EMG' if second else 'MRN'}{number:09d}"


def uid(*parts: object) -> str:
    """A DICOM UID from 96 bits of a hash (PS3.5 B.2)."""
    text = "/".join(map(str, parts)).encode()
    return f"2.25.{int.from_bytes(hashlib.blake2b(text, digest_size=12).digest())}"


def iso(seconds: np.ndarray) -> list[str]:
    """Moments as FHIR instants in UTC."""
    return [f"{t}Z" for t in np.datetime_as_string(seconds.astype("datetime64[s]"))]


class Export:
    """The lines of a chunk, by resource type, and the dirt planted in them, by kind."""

    def __init__(self, people: Population, *, seed: int, generator: np.random.Generator):
        self.people, self.seed, self.generator = people, seed, generator
        self.lines: dict[str, list[str]] = {kind: [] for kind in TYPES}
        self.dirt: Counter[str] = Counter()
        self.taken = people.admitted + generator.integers(HOUR, 20 * HOUR, len(people))
        self._main = [_key(seed, n) for n in people.number]
        self._other = [_key(seed, n, "second") for n in people.number]
        self._serial = 0
        self._people()
        self._stays()
        self._facts()
        for signal, rows in zip(SIGNALS, people.measured, strict=True):
            self._measurements(signal, rows)
        self._afterwards()
        self._studies()

    def modality(self, at: int) -> str:
        """The modality of a patient's radiograph: a few come from the older, computed kind."""
        return "CR" if int(self.people.number[at]) % 7 == 0 else "DX"

    def identifier(self, at: int) -> str:
        """The record number under which a patient's radiograph was filed."""
        return record_number(self.people.number[at], second=self.people.several[at] == 1)

    def _id(self) -> str:
        self._serial += 1
        return f"{self.people.number[0]}-{self._serial}"

    def _about(self, at: int, *, second: bool = False) -> str:
        who = self._other[at] if second and self.people.several[at] else self._main[at]
        return f'"subject":{{"reference":"Patient/{who}"}}'

    def _people(self) -> None:
        people, out = self.people, self.lines["Patient"]
        born = people.admitted - (people.age * 365.25 * DAY).astype(np.int64)
        birthdays = np.datetime_as_string(born.astype("datetime64[s]"), unit="D")
        died = people.outcome & (self.generator.random(len(people)) < 0.12)
        death = iso(
            people.admitted + DAY + self.generator.integers(31 * DAY, 90 * DAY, len(people))
        )
        for at, number in enumerate(people.number):
            dead = f',"deceasedDateTime":"{death[at]}"' if died[at] else ""
            out.append(
                f'{{"resourceType":"Patient","id":"{self._main[at]}",{_number(number)},'
                f'"name":[{{"family":"Sample{number}","given":["Pat"]}}],'
                f'"gender":"{"male" if people.male[at] else "female"}",'
                f'"birthDate":"{birthdays[at]}"{dead}}}'
            )
            if people.several[at]:  # registered in a hurry: nothing but a number
                linked = people.several[at] == 1
                other = f'"other":{{"reference":"Patient/{self._main[at]}"}}'
                link = f',"link":[{{{other},"type":"seealso"}}]'
                out.append(
                    f'{{"resourceType":"Patient","id":"{self._other[at]}",'
                    f"{_number(number, second=linked)}{link if linked else ''}}}"
                )
                self.dirt["two_identifiers"] += 1

    def _stays(self) -> None:
        people, out = self.people, self.lines["Encounter"]
        start = iso(people.admitted)
        end = iso(people.admitted + self.generator.integers(3 * DAY, 12 * DAY, len(people)))
        visits = self.generator.integers(0, 3, len(people))
        ago = self.generator.integers(20 * DAY, 400 * DAY, (len(people), 2))
        for at in range(len(people)):
            out.append(self._encounter(at, "IMP", start[at], end[at]))
            for visit in range(visits[at]):
                moment = people.admitted[at] - ago[at, visit]
                came, went, known = iso(np.array([moment, moment + HOUR, moment + DELAY]))
                out.append(self._encounter(at, "AMB", came, went))
                value = CREATININE.mean + 0.01 * int(ago[at, visit] % 40)
                self._observe(at, CREATININE, known, known, f"{value:.2f}")

    def _encounter(self, at: int, kind: str, start: str, end: str) -> str:
        return (
            f'{{"resourceType":"Encounter","id":"e{self._id()}","status":"finished",'
            f'"class":{{"system":"{ACTS}","code":"{kind}"}},{self._about(at)},'
            f'"period":{{"start":"{start}","end":"{end}"}}}}'
        )

    def _facts(self) -> None:
        """Conditions before admission, the outcome, what was given on the first day."""
        people, draw = self.people, self.generator
        count = len(people)
        for code, had in people.conditions.items():
            moments = people.admitted - draw.integers(30 * DAY, 1500 * DAY, count)
            american = draw.random(count) < 0.01
            american[0] |= had[0]
            for at, known in zip(np.flatnonzero(had).tolist(), iso(moments[had]), strict=True):
                if american[at]:
                    known = _american(known)[:10]
                    self.dirt["date_format"] += 1
                self._condition(at, code, known)
        within = people.admitted + DAY + draw.integers(2 * HOUR, 29 * DAY, count)
        later = people.admitted + DAY + draw.integers(35 * DAY, 90 * DAY, count)
        also = ~people.outcome & (draw.random(count) < 0.03)
        moments = np.where(people.outcome, within, later)
        for at in np.flatnonzero(people.outcome | also).tolist():
            self._condition(at, OUTCOME, iso(moments[at : at + 1])[0])
        for kind, system, table in (
            ("MedicationRequest", RXNORM, people.medications),
            ("Procedure", SNOMED, people.procedures),
        ):
            for code, had in table.items():
                moments = people.admitted + draw.integers(600, 20 * HOUR, count)
                for at, known in zip(np.flatnonzero(had).tolist(), iso(moments[had]), strict=True):
                    self.lines[kind].append(self._treated(kind, system, at, code, known))

    def _condition(self, at: int, code: str, known: str) -> None:
        self.lines["Condition"].append(
            f'{{"resourceType":"Condition","id":"c{self._id()}",'
            f"{_concept(STANDING, 'active', key='clinicalStatus')},{_concept(ICD, code)},"
            f'{self._about(at)},"recordedDate":"{known}"}}'
        )

    def _treated(self, kind: str, system: str, at: int, code: str, known: str) -> str:
        if kind == "Procedure":
            what, when, status = _concept(system, code), "performedDateTime", "completed"
        else:
            what = _concept(system, code, key="medicationCodeableConcept")
            when, status = "authoredOn", "active"
        extra = "" if kind == "Procedure" else '"intent":"order",'
        return (
            f'{{"resourceType":"{kind}","id":"{kind[0].lower()}{self._id()}","status":"{status}",'
            f'{extra}{what},{self._about(at)},"{when}":"{known}"}}'
        )

    def _measurements(self, signal: Signal, rows: Measured) -> None:
        moments = self.people.admitted[rows.patient] + rows.after
        taken, known = iso(moments), iso(moments + DELAY)
        columns = (rows.patient, rows.value, rows.dirt, rows.mixed, rows.repeated)
        for row, (at, value, dirt, mixed, again) in enumerate(
            zip(*(c.tolist() for c in columns), strict=True)
        ):
            kind = DIRTY[dirt - 1][0] if dirt else None
            released, unit = known[row], signal.unit
            text: str | None = f"{value:.{signal.decimals}f}"
            if kind == "missing_value":
                text = None
            elif kind == "impossible_value":
                text = str(signal.impossible)
            elif kind == "date_format":
                released = _american(released)
            elif kind == "invalid_date":
                released = f"{released[:4]}-02-30{released[10:]}"
            elif mixed and signal.other is not None:
                kind = "mixed_units"
                unit, factor, offset, decimals = signal.other
                text = f"{value * factor + offset:.{decimals}f}"
            second = row % 3 == 0
            self._observe(at, signal, taken[row], released, text, unit=unit, second=second)
            if kind:
                self.dirt[kind] += 1
            if again:
                self._observe(at, signal, taken[row], released, text, unit=unit, second=second)
                self.dirt["duplicate"] += 1

    def _observe(
        self,
        at: int,
        signal: Signal,
        taken: str,
        known: str,
        text: str | None,
        *,
        unit: str | None = None,
        second: bool = False,
        code: str | None = None,
    ) -> None:
        unit = unit or signal.unit
        value = (
            f'"valueQuantity":{{"value":{text},"unit":"{unit}","system":"http://unitsofmeasure.org",'
            f'"code":"{unit}"}}'
            if text is not None
            else '"dataAbsentReason":{"coding":[{"code":"unknown"}]}'
        )
        self.lines["Observation"].append(
            f'{{"resourceType":"Observation","id":"o{self._id()}","status":"final",'
            f"{_concept(LOINC, code or signal.loinc)},{self._about(at, second=second)},"
            f'"effectiveDateTime":"{taken}","issued":"{known}",{value}}}'
        )

    def _afterwards(self) -> None:
        """What only the future knows, results released late, and lines that broke off."""
        people, draw = self.people, self.generator
        count = len(people)
        index = people.admitted + DAY
        spo2 = next(s for s in SIGNALS if s.loinc == "59408-5")
        for turn in range(2):
            moments = index + draw.integers(2 * HOUR, 12 * HOUR, count) + turn * 12 * HOUR
            value = np.clip(np.where(people.outcome, 83, 96) + draw.normal(0, 2, count), 70, 100)
            known = iso(moments)
            for at in range(count):
                self._observe(at, spo2, known[at], known[at], f"{value[at]:.0f}")
        late = draw.random(count) < LATE
        late[-1] = True
        taken = people.admitted + draw.integers(6 * HOUR, 20 * HOUR, count)
        told = taken + draw.integers(26 * HOUR, 60 * HOUR, count)
        level = np.where(people.outcome, 1.5, 0.02) + draw.uniform(0, 0.01, count)
        signal = Signal(TROPONIN, "ng/mL", 3, 0, 1, 0, 9, 0, 0, (0, 0), 0)
        for at in np.flatnonzero(late).tolist():
            first, then = iso(np.array([taken[at], told[at]]))
            self._observe(at, signal, first, then, f"{level[at]:.3f}")
        self.dirt["late_result"] += int(late.sum())
        out = self.lines["Observation"]
        broken = draw.integers(0, len(out), max(1, int(MALFORMED * count)))
        for at in broken.tolist():
            line = out[at]
            out.append(line[: len(line) // 2])
        self.dirt["malformed_json"] += len(broken)

    def _studies(self) -> None:
        for at in np.flatnonzero(np.isfinite(self.people.severity)).tolist():
            number = self.people.number[at]
            started = iso(self.taken[at : at + 1])[0]
            self.lines["ImagingStudy"].append(
                f'{{"resourceType":"ImagingStudy","id":"i{self._id()}","status":"available",'
                f'"identifier":[{{"system":"urn:dicom:uid",'
                f'"value":"urn:oid:{uid(self.seed, number, "study")}"}}],'
                f'"modality":[{{"code":"{self.modality(at)}"}}],{self._about(at)},'
                f'"started":"{started}"}}'
            )


def _key(seed: int, number: int, *more: str) -> str:
    text = "/".join(map(str, (seed, number, *more))).encode()
    return hashlib.blake2b(text, digest_size=10).hexdigest()


def _number(number: int, *, second: bool = False) -> str:
    return (
        f'"identifier":[{{"type":{{"coding":[{{"code":"MR"}}]}},"system":"{NUMBERS}",'
        f'"value":"{record_number(number, second=second)}"}}]'
    )


def _concept(system: str, code: str, *, key: str = "code") -> str:
    return f'"{key}":{{"coding":[{{"system":"{system}","code":"{code}"}}]}}'


def _american(moment: str) -> str:
    return f"{moment[5:7]}/{moment[8:10]}/{moment[:4]} {moment[11:16]}"


def text(lines: Sequence[str]) -> str:
    """Lines as a file's text."""
    return "\n".join(lines) + "\n" if lines else ""
