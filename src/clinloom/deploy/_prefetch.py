"""What a model needs of a patient, as FHIR searches; and those resources, prefetched or fetched.

The searches name the resource types and codes that the model's features and the cohort read (index
time, eligibility, outcome), and nothing else. Where a code has a pattern, or codes of a vocabulary
may stand in several types, all that can hold them are asked for.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from clinloom.deploy import outbound
from clinloom.deploy._searches import head
from clinloom.deploy.bundle import Bundle
from clinloom.events import ANSWER
from clinloom.tables import BIRTH, DEATH

PATIENT = "{{context.patientId}}"
MEDICINES = tuple(
    f"Medication{kind}" for kind in ("Request", "Administration", "Statement", "Dispense")
)
TYPES: Mapping[str, tuple[str, ...]] = {  # which resources hold a vocabulary's codes
    BIRTH: ("Patient",),
    DEATH: ("Patient",),
    "GENDER": ("Patient",),
    "ENCOUNTER": ("Encounter",),
    "LOINC": ("Observation",),
    "SNOMED": ("Condition", "Procedure", "Observation"),
    **dict.fromkeys(("ICD10CM", "ICD10", "ICD10GM", "ICD9CM", "ICD11"), ("Condition",)),
    **dict.fromkeys(("CPT", "HCPCS", "ICD10PCS", "OPS"), ("Procedure",)),
    **dict.fromkeys(("RXNORM", "ATC", "NDC"), MEDICINES),
    "CVX": ("Immunization",),
    "IMAGE": (),  # no request carries images
}
ELSEWHERE = ("Observation", "Condition", "Procedure")
SEARCHED = {"Encounter": "class", "Immunization": "vaccine-code"}  # others: code
URIS = {
    "LOINC": "http://loinc.org",
    "SNOMED": "http://snomed.info/sct",
    "ICD10CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "ICD10": "http://hl7.org/fhir/sid/icd-10",
    "CVX": "http://hl7.org/fhir/sid/cvx",
}
READ = "patient"  # the key of the one template that is no search, and the same for all bundles
DIGEST = 8  # hexadecimal digits
LONGEST = 1500  # characters of a search's codes; more are another search
PAGES, BYTES, AT_ONCE = 50, 20 << 20, 4
ID = re.compile(r"[A-Za-z0-9.-]{1,64}")  # FHIR R4 2.24.0.1, id


class Search(NamedTuple):
    """What is asked next of a search: a URL, after so many that it ``found``, of its ``total``
    (FHIR R4 3.1.1.4.7, Bundle.total; without what was included)."""

    url: str
    found: int = 0
    total: int | None = None


class Page(NamedTuple):
    """Resources, how many of them are what was searched for, how many there are in all, and where
    the next page is."""

    resources: list[Any]
    matches: int = 1
    total: int | None = None
    more: str | None = None


class Incomplete(Exception):
    """Not all that the model needs was given, or could be fetched; ``lacking``: prefetch keys."""

    def __init__(self, lacking: Sequence[str], why: str):
        super().__init__(why)
        self.lacking, self.why = list(lacking), why


def templates(bundle: Bundle) -> dict[str, str]:
    """The prefetch templates of a bundle, by their keys."""
    found = {READ: f"Patient/{PATIENT}"}
    asked = bundle.resolved.deploy.cds_hooks
    types = {**TYPES, **(asked.resources if asked else {})}
    for kind, codes in _wanted(bundle, types, _uris(bundle)).items():
        name = kind.lower()
        search = f"{kind}?patient={PATIENT}"
        if kind in MEDICINES:  # what is given may stand in a Medication, which `code` passes over
            template = f"{search}&_include={kind}:medication"
            found[_key(name, template)] = template
            continue
        parameter = SEARCHED.get(kind, "code")
        for at, part in enumerate(_parts(codes) if codes else [""]):
            template = f"{search}&{parameter}={part}" if part else search
            found[_key(name if at == 0 else f"{name}-{at + 1}", template)] = template
    return found


def _key(name: str, template: str) -> str:
    """A prefetch's key, which tells its template: who read it of another bundle answers that."""
    return f"{name}-{hashlib.sha256(template.encode()).hexdigest()[:DIGEST]}"


def _uris(bundle: Bundle) -> dict[str, str]:
    """The URI of each vocabulary of which one is known, by the study's own names first."""
    own: dict[str, str] = {}
    for source in bundle.resolved.sources.values():
        if source.type == "fhir":
            own |= {name: uri for uri, name in getattr(source, "systems", {}).items()}
    return {**URIS, **own}


def _wanted(
    bundle: Bundle, types: Mapping[str, tuple[str, ...]], uris: Mapping[str, str]
) -> dict[str, list[str]]:
    """The codes to be searched in each resource type but Patient; none: all."""
    found: dict[str, dict[str, None]] = {}
    whole: set[str] = set()
    codes = [feature.code for feature in bundle.features]
    for code in dict.fromkeys([*codes, *bundle.resolved.cohort.codes]):
        asked = code.partition(ANSWER)[0]
        vocabulary, _, rest = asked.partition("//")
        for kind in _kinds(vocabulary, types):
            if kind == "Patient":
                continue
            token = _token(vocabulary, rest, uris)
            held = found.setdefault(kind, {})
            if token is None:
                whole.add(kind)
            else:
                held[token] = None
    return {kind: [] if kind in whole else list(held) for kind, held in sorted(found.items())}


def _kinds(vocabulary: str, types: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Which resource types may hold codes of a vocabulary, or of a pattern of some."""
    if "*" not in vocabulary:
        return types.get(vocabulary, ELSEWHERE)
    fitting = [kinds for name, kinds in types.items() if fnmatchcase(name, vocabulary)]
    if vocabulary.strip("*"):  # such as ICD*: of vocabularies that are known
        return tuple(dict.fromkeys(kind for kinds in fitting for kind in kinds)) or ELSEWHERE
    return tuple(dict.fromkeys(kind for kinds in [*fitting, ELSEWHERE] for kind in kinds))


def _token(vocabulary: str, rest: str, uris: Mapping[str, str]) -> str | None:
    """A code as a search has it; None: by no code can it be searched."""
    if vocabulary == "ENCOUNTER":
        rest = rest.partition("//")[0]
        return None if not rest or "*" in rest or rest == "UNKNOWN" else quote(rest, safe="")
    if not rest or "*" in vocabulary + rest:
        return None
    uri = uris.get(vocabulary)
    coded = quote(rest, safe=".-")
    return f"{uri}|{coded}" if uri else coded


def _parts(codes: Sequence[str]) -> Iterator[str]:
    """The codes as values of searches, each of bounded length."""
    held: list[str] = []
    size = 0
    for code in codes:
        if held and size + len(code) > LONGEST:
            yield ",".join(held)
            held, size = [], 0
        held.append(code)
        size += len(code) + 1
    yield ",".join(held)


def taken(
    wanted: Mapping[str, str], given: Mapping[str, Any], patient: str, *, server: str | None
) -> tuple[list[Any], dict[str, Search]]:
    """The resources that ``wanted`` (templates) ask for, of the patient with this FHIR id, as far
    as they were ``given`` (the request's prefetch); and by key what is yet to be asked.

    ``server``: a base URL that may be asked. A search answered by null, where there is none, found
    nothing.
    """
    found: list[Any] = []
    asking: dict[str, Search] = {}
    for key, template in wanted.items():
        value = given.get(key)
        if value is not None and bytes(value) == b"null" and server is None and key != READ:
            continue
        page = _page(value, single=key == READ)
        search = Search(f"{server}/{template.replace(PATIENT, patient).replace('|', '%7C')}")
        if page is not None and page.more is not None:
            asking[key] = Search(page.more, page.matches, page.total)
        elif page is None or page.matches < (page.total or 0):
            asking[key] = search
            continue
        found += page.resources
    return found, asking


def fetched(
    asking: Mapping[str, Search], *, server: str | None, token: str | None, seconds: float
) -> list[Any]:
    """The resources of searches by key, from ``server`` with ``token``. Raises Incomplete."""
    if server is None:
        raise Incomplete(list(asking), "it was not prefetched, and no agreed FHIR server is named")
    source = _Source(server, token, time.monotonic() + seconds)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(source.all, asking, asking.values()))
    lacking = [key for key, got in zip(asking, found, strict=True) if got is None]
    if lacking:
        raise Incomplete(lacking, "it was not prefetched, and could not be fetched")
    return [resource for got in found for resource in got or ()]


def _page(value: Any, *, single: bool) -> Page | None:
    """The answer of a read, or a page of a search's; None where it is none."""
    try:
        told = head(value) if value is not None else None
    except (msgspec.MsgspecError, RecursionError):
        return None
    if told is None or told.resourceType == "OperationOutcome":
        return None
    if told.resourceType != "Bundle":
        return Page([value]) if single and told.resourceType == "Patient" else None
    entries = [entry for entry in told.entry or () if bytes(entry.resource) != b"null"]
    if any(b"OperationOutcome" in bytes(entry.resource) for entry in entries):
        hints = [entry for entry in entries if _outcome(entry.resource)]
        if any(_failed(entry.resource) for entry in hints):
            return None
        entries = [entry for entry in entries if entry not in hints]
    if single and len(entries) != 1:
        return None
    matches = sum(entry.found for entry in entries)
    return Page([entry.resource for entry in entries], matches, told.total, told.more)


def _outcome(resource: Any) -> bool:
    """Whether it is an OperationOutcome, which a server may set among what it found."""
    try:
        return head(resource).resourceType == "OperationOutcome"
    except (msgspec.MsgspecError, RecursionError):
        return False


def _failed(outcome: Any) -> bool:
    issues = head(outcome).issue
    return not issues or any(issue.severity in ("fatal", "error") for issue in issues)


class _Source:
    """A FHIR server, asked within one bound of time, of pages and of bytes for all searches."""

    def __init__(self, server: str, token: str | None, until: float):
        self.server, self.until = server, until
        self.headers = {"Accept": "application/fhir+json"}
        if token is not None:
            self.headers["Authorization"] = f"Bearer {token}"

    def all(self, key: str, search: Search) -> list[Any] | None:
        """Every resource of a search, page by page; None where one of them cannot be had, or there
        are fewer than its total."""
        found: list[Any] = []
        asked: set[str] = set()
        left, more, matches, total = BYTES, search.url, search.found, search.total
        while more:
            inside = more.startswith((f"{self.server}/", f"{self.server}?"))
            if not inside or more in asked or len(asked) >= PAGES or "/.." in more:
                return None
            asked.add(more)
            try:
                data = outbound.get(
                    more, where=key, until=self.until, most=left, headers=self.headers
                )
            except outbound.Unreachable:
                return None
            left -= len(data)
            page = _page(msgspec.Raw(data), single=key == READ)
            if page is None:
                return None
            found += page.resources
            matches += page.matches
            total = total if page.total is None else page.total
            more = page.more or ""
        return found if matches >= (total or 0) else None


def one(resources: Iterable[Any]) -> list[Any]:
    """Each resource once: searches may find the same ones."""
    return list({bytes(resource): resource for resource in resources}.values())
