"""How the models were judged, set aside or in turn, and what the bundle's model was learned of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clinloom.report import disclosure
from clinloom.report.figures import number

Record = Mapping[str, Any]
PATIENTS = (
    "Measured on test patients that no model saw in training, from the same sources. Another"
    " hospital needs a test of its own before anyone relies on these numbers there."
)
IN_TURN = (
    "Every {unit} was judged {times}by a model that was learned, tuned and given its threshold on"
    " other {others} alone; the results are of all these risks together, and of patients from the"
    " same sources. Which of the models is shown first was chosen by folds of the same patients,"
    " which flatters it a little."
)
ELSEWHERE = (
    "Each site was judged by a model that was learned, tuned and given its threshold at the others:"
    " the results tell how such a model fares at a site that it has not seen."
)
LATER = (
    "Measured on patients whose time came later than that of all whom the model learned from. Of"
    " other hospitals it tells nothing."
)
AS_TOLD = (
    "Which patients were learned from and which judge is told by the data themselves: how alike"
    " they are is for who knows these data to say."
)
AT_WORK = {
    "all": "The model in the bundle was learned once more, from all rows, as it was tuned. The"
    " results are not its own: those are {figures}. Its threshold was {threshold}.",
    "train": "The model in the bundle is the one that was judged.",
}

OTHERS = {"site": ELSEWHERE, "time": LATER, "column": AS_TOLD}


def view(record: Record, model: Record, unit: str) -> dict[str, Any]:
    """What the page tells: ``how`` in sentences, and ``parts`` with the mean of what they tell."""
    found, learned = record.get("judged") or {}, record.get("learned") or {}
    method, names = found.get("method"), found.get("parts") or []
    how = [PATIENTS]
    if method == "kfold":
        repeats = len(names) // max(1, len({name.split(", ")[-1] for name in names}))
        times = f"{repeats} times " if repeats > 1 else ""
        singular = unit.removesuffix("s")
        how = [IN_TURN.format(unit=singular, times=times, others="folds")]
    elif method in OTHERS:
        how = [OTHERS[method]]
    if learned.get("rows") in AT_WORK:
        how.append(AT_WORK[learned["rows"]].format(**learned))
    rows = model.get("parts") or []
    mean = model.get("mean") or {}
    return {
        "how": how,
        "in_turn": method in ("kfold", "site"),
        "site": method == "site",
        "mean": {key: number(mean.get(key)) for key in ("auroc", "brier")},
        "parts": [
            {
                "name": row["part"],
                "rows": _counted(row["rows"]),
                "positive": _counted(row["positive"]),
                "auroc": number(row["auroc"]),
                "brier": number(row["brier"]),
            }
            for row in rows
        ],
    }


def _counted(rows: int | None) -> str:
    return disclosure.HIDDEN if rows is None else disclosure.cell(rows, True)
