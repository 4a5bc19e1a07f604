"""Table 1: what those with and without the outcome are like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clinloom.report import names as words
from clinloom.report.figures import FEW, MINUS, NONE, few, percent

SIZE = "n"  # the name of the first row: how many rows each column describes
HIDDEN = "hidden"
ALL_BUT_FEW = f"all but <{FEW}"
PARTS = ("overall", "without", "with")


def table_one(
    names: Sequence[str], values: np.ndarray, label: np.ndarray, *, limit: int = 25
) -> list[dict[str, str]]:
    """The characteristics of all rows, of those without and of those with the outcome.

    ``names`` (features,), ``values`` (rows, features) with NaN for missing, ``label`` (rows,)
    bool. Answers dictionaries of texts: ``name``, ``overall``, ``without``, ``with``, ``missing``.
    The first row is named ``n`` and gives the columns' sizes; then follow up to ``limit``
    characteristics, those with the fewest missing, in the order given.

    Numbers are told as median (Q1–Q3), characteristics of 0 and 1 as n (%) of the known. No count
    below 5 is shown, nor one that leaves fewer than 5 over, nor the total from which a hidden
    count could be had.
    """
    values, label = np.asarray(values, float), np.asarray(label).astype(bool)
    known = np.isfinite(values)
    groups = {"overall": np.ones(label.size, bool), "without": ~label, "with": label}
    rows = [_size(groups)]
    share = known.mean(axis=0) if label.size else np.zeros(len(names))
    full = np.argsort(-share, kind="stable")[:limit]
    chosen = sorted(int(at) for at in full if share[at] > 0)
    for at, name in zip(chosen, words.features([names[at] for at in chosen]), strict=True):
        column, there = values[:, at], known[:, at]
        parts = [column[there & groups[part]] for part in PARTS]
        binary = bool(np.isin(parts[0], (0.0, 1.0)).all())
        cells = _counted(parts) if binary else _measured(parts)
        rows.append(
            {
                "name": name,
                **dict(zip(PARTS, cells, strict=True)),
                "missing": _missing(1 - share[at]),
            }
        )
    return rows


def _size(groups: dict[str, np.ndarray]) -> dict[str, str]:
    sizes = {part: int(inside.sum()) for part, inside in groups.items()}
    texts = {part: few(size) for part, size in sizes.items()}
    if min(sizes["without"], sizes["with"]) < FEW <= sizes["overall"]:
        texts["overall"] = HIDDEN
    return {"name": SIZE, **texts, "missing": ""}


def _counted(parts: Sequence[np.ndarray]) -> list[str]:
    """n (%) of each part; the first part is the sum of the others."""
    cells = [_count(int(part.sum()), part.size) for part in parts]
    if any("<" in cell for cell in cells[1:]) and "<" not in cells[0]:
        cells[0] = HIDDEN
    return cells


def _count(number: int, total: int) -> str:
    if number < FEW:
        return few(number)
    if total - number < FEW:
        return ALL_BUT_FEW
    return f"{number:,} ({percent(number / total)})"


def _measured(parts: Sequence[np.ndarray]) -> list[str]:
    """median (Q1–Q3) of each part, all with the same decimals."""
    whole = bool((parts[0] == np.rint(parts[0])).all())
    found = [np.percentile(part, (50, 25, 75)) if part.size >= FEW else None for part in parts]
    shown = np.concatenate([f for f in found if f is not None] or [np.zeros(1)])
    decimals = _decimals(shown, whole=whole)
    return [_quartiles(f, decimals) if f is not None else f"<{FEW} known" for f in found]


def _decimals(shown: np.ndarray, *, whole: bool) -> int | None:
    """How many decimals suit the numbers; None: as powers of ten."""
    largest = float(np.abs(shown).max())
    if largest >= 1e7 or 0 < largest < 1e-3:
        return None
    if whole:
        return 0 if (shown == np.rint(shown)).all() else 1
    return 0 if largest >= 200 else 1 if largest >= 10 else 2 if largest >= 0.1 else 4


def _quartiles(found: np.ndarray, decimals: int | None) -> str:
    form = ",.3g" if decimals is None else f",.{decimals}f"
    median, low, high = (format(float(value) + 0.0, form).replace("-", MINUS) for value in found)
    between = " to " if MINUS in low else NONE
    return f"{median} ({low}{between}{high})"


def _missing(share: float) -> str:
    if share <= 0:
        return "0%"
    return "<1%" if share < 0.01 else ">99%" if share > 0.99 else f"{100 * share:.0f}%"
