"""Identifiers that are nobody's: what is typed where no identifier is known."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WORDS = frozenset(
    "ANON ANONYMISED ANONYMIZED ANONYMOUS DEFAULT DUMMY EMPTY MISSING N.A. N/A N\\A NA "
    "NIL NO-ID NOID NONE NOT-APPLICABLE NOT-AVAILABLE NOT-KNOWN NULL PATIENT TBD TEMP "
    "TEST TEST-PATIENT TESTPATIENT UNASSIGNED UNBEKANNT UNDEFINED UNIDENTIFIED UNK "
    "UNKNOWN UNKNOWN-PATIENT UNSPECIFIED".split()
)
FILLED = r"^(0+|9{6,}|X{2,}|Z{3,}|\?+|-+|_+|\.+|\*+|#+)$"


def nobody(values: pa.Array, *, counted: bool = False) -> pa.Array:
    """Which identifiers (n,) are placeholders: words such as UNKNOWN, N/A, TEST, or 000000, XXX.

    ``counted``: a source numbers its own patients, so that its lone ``0`` is one of them.
    """
    values = values.cast(pa.string())
    suspect = pc.invert(pc.match_substring_regex(values, "[1-8]"))  # no placeholder has these
    if not pc.any(suspect).as_py():
        return suspect
    found = np.zeros(len(values), bool)
    found[suspect.to_numpy(zero_copy_only=False)] = _empty(values.filter(suspect), counted)
    return pa.array(found)


def _empty(values: pa.Array, counted: bool) -> np.ndarray:
    plain = pc.utf8_upper(pc.utf8_trim_whitespace(values))
    words = pc.replace_substring_regex(plain, r"[\s_-]+", "-")
    words = pc.replace_substring_regex(words, r"^[(\[<{]+|[)\]>}]+$", "")
    named = pc.is_in(words, pa.array(sorted(WORDS), pa.string()))
    found = pc.or_(pc.or_(named, pc.match_substring_regex(plain, FILLED)), pc.equal(plain, ""))
    found = pc.and_(found, pc.not_equal(plain, "0")) if counted else found
    marks: np.ndarray = found.to_numpy(zero_copy_only=False)
    return marks
