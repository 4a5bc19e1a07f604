"""Who is who within one request, and what the request calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.identity.few import few


def keys(parcels: Sequence[Mapping[str, pa.Table]]) -> list[str]:
    """What the request calls those of whom it tells: each record of a patient."""
    found: dict[str, None] = {}
    for parcel in parcels:
        if "links" in parcel:
            found |= dict.fromkeys(pc.unique(parcel["links"].column("patient")).to_pylist())
    return list(found)


def true(links: Sequence[pa.Table], own: np.ndarray) -> list[int]:
    """The subjects for which records' own hashes (n,) stand."""
    listed: list[int] = own.tolist()
    if len(listed) < 2:
        return listed
    walked, _ = few(list(links))
    known = dict(zip(*(walked.column(n).to_pylist() for n in ("own", "subject_id")), strict=True))
    return [known.get(number, number) for number in listed]


def called(keys: Sequence[str], true: Sequence[int], subject: str | None) -> dict[int, str]:
    """A name for each subject: the one that was asked for, else a record's before others."""
    found: dict[int, str] = {}
    ranked = sorted(zip(keys, true, strict=True), key=lambda pair: (pair[0] != subject, *pair))
    for key, number in ranked:
        found.setdefault(number, key)
    return found


def moved(rows: pa.Table, moved: Mapping[int, int]) -> pa.Table:
    """The rows with the subjects for which their own stand."""
    if not moved:
        return rows
    subjects = [moved.get(s, s) for s in rows.column("subject_id").to_pylist()]
    place = rows.schema.get_field_index("subject_id")
    return rows.set_column(place, "subject_id", pa.array(subjects, pa.int64()))
