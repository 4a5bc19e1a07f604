"""What patients are called: an identifier is a pair of its system and a value.

``system|value`` is the pair as one text, and 63 bits of that text's hash are a subject. What no
system is told of belongs to its source alone, which stands for the system: ``#ehr``. So the same
number of two hospitals, servers or tables is two patients, until the data or the study name one
system for both. (FHIR R4 2.24.0.7 Identifier; DICOM PS3.3 C.2.2, Issuer of Patient ID)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.identity.placeholders import nobody
from clinloom.identity.subjects import hashed
from clinloom.tables import LEDGER, LINKS, REFUSED, REJECTED, conform

OWN = "#"  # begins the name of a source that stands for a system
BAR, ESCAPES = "|", {"%": "%25", "|": "%7C"}
OTHERS = 99  # the rank of a system that no source calls its own
MARK = 3  # letters before a name in LINKS: whether it named a subject before, and its system's rank
PAIR = r"(?s)^(?P<system>[^|]*)\|(?P<identifier>.*)$"


@dataclass(frozen=True)
class Naming:
    """How one source's patients are called.

    ``own``: the system of its own identifiers; ``ranks``: of systems, which of a patient's names
    the subject is called by: those that the study says first, then those of records, then in the
    order of the study's sources;
    ``counted``: it may have numbered its patients by itself, from 0.
    """

    source: str
    own: str
    ranks: Mapping[str, int]
    counted: bool = False


def namings(
    systems: Mapping[str, tuple[str | None, bool]], anchors: Iterable[str] = ()
) -> dict[str, Naming]:
    """How the patients of each source are called.

    ``systems``: in the study's order, the system of a source's own identifiers (none: the source
    itself), and whether it tells which identifiers belong together. ``anchors``: the systems whose
    identifiers name subjects before records do.
    """
    own = {name: told or f"{OWN}{name}" for name, (told, _) in systems.items()}
    order = sorted(systems, key=lambda name: not systems[name][1])  # stable
    ranked = dict.fromkeys([*anchors, *(own[name] for name in order)])
    ranks = {system: min(n, OTHERS - 1) for n, system in enumerate(ranked)}
    return {
        name: Naming(name, own[name], ranks, counted=told is None and not links)
        for name, (told, links) in systems.items()
    }


def texts(systems: pa.Array | str, values: pa.Array) -> pa.Array:
    """Pairs (n,) as texts."""
    escaped = systems
    for sign, code in ESCAPES.items():
        if isinstance(escaped, str):
            escaped = escaped.replace(sign, code)
        else:
            escaped = pc.replace_substring(escaped, sign, code)
    return pc.binary_join_element_wise(escaped, values, BAR)


def pairs(names: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Texts (n,) as pairs: systems and values."""
    found = pc.extract_regex(names, PAIR)
    system = found.field(0)
    for sign, code in reversed(ESCAPES.items()):
        system = pc.replace_substring(system, code, sign)
    return system, found.field(1)


def plain(marked: pa.Array) -> pa.Array:
    """The names in LINKS without their marks."""
    return pc.utf8_slice_codeunits(marked, MARK)


def named(parcel: Mapping[str, pa.Table], naming: Naming) -> dict[str, pa.Table]:
    """A parcel's tables with ``subject_id`` for ``patient``, and its links (LINKS).

    Beside ``patient`` a table may have ``system``, and links ``other_system``; null, or no such
    column: the source's own. What a placeholder stands for is refused (``placeholder_patient``),
    or not linked, which the ledger counts. A record that is called as its patient is called
    ``patient#<hash of that name>``.
    """
    out = dict(parcel)
    refused = [parcel["rejected"]] if "rejected" in parcel else []
    for name in ("images", "events"):
        if name in parcel:
            out[name], dropped = _subjects(parcel[name], naming)
            if dropped is not None and (name == "images" or "images" not in parcel):
                refused.append(_refusals(dropped, naming.source))
    if refused:
        both = [_subjects(part, naming, keep=True)[0] for part in refused]
        out["rejected"] = pa.concat_tables([conform(part, REFUSED) for part in both])
    if "links" in parcel:
        out["links"], lost = linked(parcel["links"], naming)
        if lost:
            row = {"rule": "placeholder_identifier", "action": "not_linked", "count": lost}
            told = LEDGER.rows([{**row, "source": naming.source}])
            before = [parcel["ledger"]] if "ledger" in parcel else []
            out["ledger"] = pa.concat_tables([*before, told])
    return {name: rows for name, rows in out.items() if rows.num_rows}


def systems(parcel: Mapping[str, pa.Table]) -> set[str]:
    """The systems that a parcel's links tell of."""
    links = parcel.get("links", LINKS.empty)
    told = [links.column(n) for n in ("system", "other_system") if n in links.column_names]
    return {system for column in told for system in pc.unique(column).to_pylist() if system}


def linked(links: pa.Table, naming: Naming) -> tuple[pa.Table, int]:
    """Links by names with their marks (LINKS); and how many led to a placeholder."""
    made, kept = [], None
    for name, system in (("patient", "system"), ("other", "other_system")):
        values = pc.utf8_trim_whitespace(_array(links.column(name)).cast(pa.string()))
        systems = _systems(links, system, naming)
        own = isinstance(systems, str)
        fine = pc.invert(nobody(values, counted=naming.counted and own))
        kept = fine if kept is None else pc.and_(kept, fine)
        made.append(
            pc.binary_join_element_wise(_marks(systems, naming), texts(systems, values), "")
        )
    lost = pc.and_not(pc.not_equal(*made), kept)
    return pa.table(made, schema=LINKS.arrow).filter(kept), pc.sum(lost).as_py() or 0


def _marks(systems: pa.Array | str, naming: Naming) -> pa.Array | pa.Scalar:
    """What stands before the name in LINKS: see ``MARK``."""
    if isinstance(systems, str):
        return pa.scalar(_mark(naming, systems))
    coded = systems.dictionary_encode()
    marks = [_mark(naming, system) for system in coded.dictionary.to_pylist()]
    return pa.array(marks, pa.string()).take(coded.indices)


def _mark(naming: Naming, system: str) -> str:
    return f"1{naming.ranks.get(system, OTHERS):02}"


def _array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _systems(rows: pa.Table, name: str, naming: Naming) -> pa.Array | str:
    """The system of each row, or of all of them."""
    if name not in rows.column_names:
        return naming.own
    return pc.fill_null(_array(rows.column(name)).cast(pa.string()), naming.own)


def _subjects(
    rows: pa.Table, naming: Naming, *, keep: bool = False
) -> tuple[pa.Table, pa.Table | None]:
    """The rows with ``subject_id``, and those whose patient is a placeholder.

    ``keep``: these stay, without a subject.
    """
    if "patient" not in rows.column_names:
        return rows, None
    who = rows.column("patient")
    if pa.types.is_dictionary(who.type):
        who = who.unify_dictionaries().combine_chunks()
    else:
        who = _array(who).dictionary_encode()
    values = pc.utf8_trim_whitespace(who.dictionary.cast(pa.string()))
    systems = _systems(rows, "system", naming)
    if isinstance(systems, str):
        own = pa.array(hashed(texts(systems, values))).take(who.indices)
    else:
        each = texts(systems, values.take(who.indices)).dictionary_encode()
        own = pa.array(hashed(each.dictionary)).take(each.indices)
    named = rows.drop_columns([n for n in ("patient", "system") if n in rows.column_names])
    named = _veiled(named, who, own).append_column("subject_id", own)
    empty = nobody(values, counted=naming.counted)
    lost = pc.fill_null(empty.take(who.indices), False) if pc.any(empty).as_py() else empty
    if not pc.any(lost).as_py():  # of a file's words, a placeholder may be no patient's
        return named, None
    if keep:
        at = named.schema.get_field_index("subject_id")
        return named.set_column(at, "subject_id", pc.if_else(lost, None, own)), None
    return named.filter(pc.invert(lost)), named.filter(lost)


def _veiled(rows: pa.Table, who: pa.DictionaryArray, own: pa.Array) -> pa.Table:
    """The rows, a ``record_id`` that tells the patient's identifier replaced by that one's hash."""
    if "record_id" not in rows.column_names:
        return rows
    record, called = _array(rows.column("record_id")).cast(pa.string()), who.dictionary
    if len(called) == 1 and not who.null_count:
        at = pc.indices_nonzero(pc.equal(record, called[0]))
    else:  # few rows have two texts as long as another
        long = pc.binary_length(called).take(who.indices)
        at = pc.indices_nonzero(pc.fill_null(pc.equal(pc.binary_length(record), long), False))
        names = called.cast(pa.string()).take(who.indices.take(at))
        at = at.filter(pc.equal(record.take(at), names))
    if not len(at):
        return rows
    same = np.zeros(len(record), bool)
    same[at.to_numpy()] = True
    veil = pc.binary_join_element_wise("patient", own.take(at).cast(pa.string()), OWN)
    place = rows.schema.get_field_index("record_id")
    veiled = pc.replace_with_mask(record, pa.array(same), veil)
    return rows.set_column(place, "record_id", veiled)


def _refusals(rows: pa.Table, source: str) -> pa.Table:
    """Rows of events or images as refusals (REJECTED)."""
    given = {"source": source, "stage": "acquire", "reason": "placeholder_patient"}
    columns = []
    for field in REJECTED.arrow:
        if field.name in given:
            columns.append(pa.repeat(pa.scalar(given[field.name]), rows.num_rows))
        elif field.name != "subject_id" and field.name in rows.column_names:
            columns.append(rows.column(field.name).cast(field.type))
        else:
            columns.append(pa.nulls(rows.num_rows, field.type))
    return pa.table(columns, schema=REJECTED.arrow)
