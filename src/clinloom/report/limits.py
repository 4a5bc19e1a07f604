"""What the numbers cannot tell, as far as the record itself shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clinloom.report.disclosure import parts

Record = Mapping[str, Any]
SOCIAL = ("sex", "age", "ethnicity")
FEW_EVENTS = 100  # Collins, Ogundimu and Altman, Stat. Med. 35 (2016) 214


def limits(record: Record, model: Record) -> list[str]:
    """The limits of a run, a sentence each."""
    test = (record.get("split") or {}).get("test") or {}
    out = []
    if (record.get("judged") or {}).get("method") not in ("site", "time"):
        out.append(
            "Those judged are of the same sources and time as those learned from: how the model"
            " does elsewhere, or later, this does not tell."
        )
    out += [
        "The times that the sources tell are believed: what was written afterwards and dated before"
        " would not be seen.",
    ]
    with_, rows = test.get("positive") or 0, test.get("rows") or 0
    if test and min(with_, rows - with_) < FEW_EVENTS and all(parts([with_, rows - with_])):
        out.append(
            "Fewer than 100 test rows have, or have not, the outcome: intervals are wide, and"
            " calibration curves bend by chance (Collins et al., Stat Med 2016)."
        )
    hidden = [row for row in record.get("subgroups") or [] if not row["shown"]]
    if hidden:
        out.append("Some subgroups are too small to be shown: of them nothing is known.")
    found = {row["kind"] for row in record.get("subgroups") or []}
    lacking = [kind for kind in SOCIAL if kind not in found]
    if lacking and model.get("test"):
        out.append(
            f"No subgroups of {' or '.join(lacking)} could be formed: whether the model does as"
            " well for all of them is not known."
        )
    for pattern in record.get("unfound") or []:
        out.append(f"No feature fits the subgroup {pattern} that the study asks for.")
    if record.get("explanation"):
        out.append(
            "What a model leans on is no cause of the outcome; features that tell the same hide one"
            " another."
        )
    if len(record.get("subgroups") or []) > 1:
        out.append("Of many subgroups one in twenty intervals misses by chance alone.")
    return out


def demographics(record: Record) -> str:
    """Which demographic and social variables the subgroups tell of."""
    found = dict.fromkeys(row["kind"] for row in record.get("subgroups") or [])
    known = [kind for kind in found if kind in SOCIAL]
    if not known:
        return ""
    return f"Known as such among the features: {', '.join(known)}. Others may be measurements."
