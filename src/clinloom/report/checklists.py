"""What reviewers ask of a prediction model, filled in as far as software can know.

TRIPOD+AI (Collins et al., BMJ 385 (2024) e078378) by its items, PROBAST+AI (Moons et al., BMJ 388
(2025) e082505) by its domains, and the 31 source attributes of a predictive decision support
intervention (HTI-1: 45 CFR 170.315(b)(11)(iv)(B)). The items are named in our own words. What only
a person can say is left, and said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

PERSON = "For a person to write."


class Item(NamedTuple):
    """An item, what it asks, and what software knows of it (a key of :func:`facts`, or none)."""

    number: str
    asks: str
    known: str = ""


TRIPOD = (
    Item("1", "Title: development or evaluation, population, outcome", "title"),
    Item("2", "Abstract"),
    Item("3a", "Clinical background and rationale"),
    Item("3b", "Target population, purpose and place in the care pathway, users"),
    Item("3c", "Known inequalities between groups"),
    Item("4", "Objectives", "question"),
    Item("5a", "Sources of data", "sources"),
    Item("5b", "Dates of the data", "dates"),
    Item("6a", "Setting and centres"),
    Item("6b", "Eligibility", "flow"),
    Item("6c", "Treatments received"),
    Item("7", "Preparation of the data", "preparation"),
    Item("8a", "Outcome, its time and how it was assessed", "outcome"),
    Item("8b", "Who assessed the outcome"),
    Item("8c", "Blinding of its assessment"),
    Item("9a", "Choice of the first predictors", "predictors"),
    Item("9b", "Definition of predictors and when they were measured", "predictors"),
    Item("9c", "Who assessed predictors"),
    Item("10", "Size of the sample", "size"),
    Item("11", "Missing values", "missing"),
    Item("12a", "How data were used: development and evaluation", "split"),
    Item("12b", "How predictors were handled", "missing"),
    Item("12c", "Kind of model, its building, internal validation", "models"),
    Item("12d", "Differences between clusters", "clusters"),
    Item("12e", "Measures of performance", "measures"),
    Item("12f", "Updating of the model", "updating"),
    Item("12g", "How predictions are computed", "computed"),
    Item("13", "Imbalance of classes", "imbalance"),
    Item("14", "Approach to fairness", "fairness"),
    Item("15", "Output of the model", "output"),
    Item("16", "Differences between training and evaluation data", "split"),
    Item("17", "Ethical approval"),
    Item("18a", "Funding"),
    Item("18b", "Conflicts of interest"),
    Item("18c", "Protocol", "protocol"),
    Item("18d", "Registration"),
    Item("18e", "Sharing of data"),
    Item("18f", "Sharing of code", "code"),
    Item("19", "Involvement of patients and the public"),
    Item("20a", "Flow of participants", "flow"),
    Item("20b", "Characteristics of participants", "characteristics"),
    Item("20c", "Comparison of development and evaluation data", "split"),
    Item("21", "Participants and outcomes in each analysis", "size"),
    Item("22", "The full model", "computed"),
    Item("23a", "Performance with intervals, of key subgroups, too", "performance"),
    Item("23b", "Heterogeneity of performance", "clusters"),
    Item("24", "Results of updating", "updating"),
    Item("25", "Interpretation"),
    Item("26", "Limitations", "limits"),
    Item("27a", "Poor or missing input at use", "missing"),
    Item("27b", "What users must do and know"),
    Item("27c", "Next steps"),
)
PROBAST = (
    Item("1", "Participants and data: suitable sources, inclusions and exclusions", "flow"),
    Item("1", "Participants and data: representative of those the model is meant for"),
    Item("2", "Predictors: defined and measured alike, available when the model answers", "audit"),
    Item("2", "Predictors: measured without knowledge of the outcome", "audit"),
    Item("3", "Outcome: defined without predictors, alike for all, after a fit span", "outcome"),
    Item("3", "Outcome: determined without knowledge of predictors"),
    Item("4", "Analysis: enough participants with the outcome", "size"),
    Item("4", "Analysis: missing values and predictors handled fitly", "missing"),
    Item("4", "Analysis: all enrolled participants in it", "flow"),
    Item("4", "Analysis: overfitting and optimism accounted for", "split"),
    Item("4", "Analysis: leakage between training and evaluation", "audit"),
    Item("4", "Analysis: discrimination, calibration and net benefit", "measures"),
    Item("4", "Analysis: competing events, censoring, clusters of rows", "clusters"),
    Item("4", "Analysis: performance across groups", "fairness"),
    Item("", "Overall risk of bias, and applicability"),
)
HTI1 = (
    Item("1(i)", "Name and contact of the developer"),
    Item("1(ii)", "Funding of the development"),
    Item("1(iii)", "Value that is the output", "output"),
    Item("1(iv)", "Kind of output", "kind"),
    Item("2(i)", "Intended use"),
    Item("2(ii)", "Intended patients", "flow"),
    Item("2(iii)", "Intended users"),
    Item("2(iv)", "Intended role in decisions"),
    Item("3(i)", "Tasks, situations and populations that are out of scope"),
    Item("3(ii)", "Known risks, inappropriate settings and uses, limitations", "limits"),
    Item("4(i)", "Inclusion and exclusion of the training data", "flow"),
    Item("4(ii)", "Demographic and social variables among the inputs", "demographics"),
    Item("4(iii)", "Demographic representativeness of the training data", "characteristics"),
    Item("4(iv)", "Relevance of the training data to where it is used"),
    Item("5(i)", "Approach to a fair output"),
    Item("5(ii)", "Approach to manage or reduce bias"),
    Item("6(i)", "External validation: data and setting", "external"),
    Item("6(ii)", "External validation: by whom", "external"),
    Item("6(iii)", "External validation: demographic representativeness", "external"),
    Item("6(iv)", "External validation: process", "external"),
    Item("7(i)", "Validity in test data of the same source", "performance"),
    Item("7(ii)", "Fairness in test data of the same source", "fairness"),
    Item("7(iii)", "Validity in external data", "external"),
    Item("7(iv)", "Fairness in external data", "external"),
    Item("7(v)", "Evaluations of its effect on outcomes"),
    Item("8(i)", "How and how often validity is monitored", "monitoring"),
    Item("8(ii)", "Validity in local data", "local"),
    Item("8(iii)", "How and how often fairness is monitored", "monitoring"),
    Item("8(iv)", "Fairness in local data", "local"),
    Item("9(i)", "How and how often it is updated"),
    Item("9(ii)", "How often performance is corrected"),
)
LISTS = {
    "TRIPOD+AI": (TRIPOD, "Collins et al., BMJ 385 (2024) e078378"),
    "PROBAST+AI": (PROBAST, "Moons et al., BMJ 388 (2025) e082505"),
    "HTI-1": (HTI1, "45 CFR 170.315(b)(11)(iv)(B): the 31 source attributes"),
}


def filled(found: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every list with what is known of each item."""
    out = []
    for title, (items, source) in LISTS.items():
        rows = [
            {
                "number": item.number,
                "asks": item.asks,
                "known": found.get(item.known) or PERSON,
                "person": item.known not in found,
            }
            for item in items
        ]
        known = sum(not row["person"] for row in rows)
        out.append({"title": title, "source": source, "rows": rows, "known": known})
    return out


def facts(view: Mapping[str, Any]) -> dict[str, str]:
    """What software knows, from the page's own texts, so that one rule hides small counts."""
    split, model = view["split"], view["chosen"]
    parts = ", ".join(f"{row['name']}: {row['subjects']} patients" for row in split["rows"])
    sizes = "; ".join(
        f"{row['name']}: {row['rows']} rows, {row['positive']} with the outcome"
        for row in split["rows"]
    )
    flow = (view["flow"] or {}).get("steps", ())
    steps = "; ".join(f"{step['name']}: {step['count']}" for step in flow)
    sources = (f"{s['name']} ({s['type']}), {s['events']} events" for s in view["sources"])
    told = [t for t in view["tiles"] if t["note"] and t["hint"]]
    leakage = view["leakage"] or {}
    fair = view["subgroups"]
    out = {
        "title": view["title"],
        "question": view["description"],
        "sources": "; ".join(sources),
        "flow": steps and f"{steps}.",
        "preparation": "Every change and refusal is counted in the section on data quality.",
        "outcome": "As the study file defines it (study.resolved.yaml, cohort.outcome).",
        "predictors": "As the study file defines them (study.resolved.yaml, features); only what"
        " was known before the prediction is used.",
        "size": sizes and f"{sizes}. No size was computed beforehand.",
        "missing": "A missing value gets a value learned on training rows and a flag of its own;"
        " extreme values are drawn in to bounds learned there; scoring does the same.",
        "split": parts and " ".join([f"{parts}.", *view["judged"]["how"]]),
        "models": model and f"{model}; others beside it in the comparison.",
        "clusters": "Intervals draw whole patients. Subgroups and months have sections.",
        "measures": "Discrimination, calibration, flags and net benefit, as defined on this page.",
        "updating": "As the study file says (calibration): on rows that fits in folds left out, or"
        " not; not after the evaluation.",
        "computed": "The bundle holds the model as arrays, by which one function scores.",
        "imbalance": "Unless a model says `imbalance: none`, rows of the rarer outcome weigh more"
        " in its fits, or are repeated where it takes no weights (study.resolved.yaml, models).",
        "fairness": fair and "Metrics of subgroups, with differences to the rest and intervals.",
        "output": "A risk from 0 to 1, and a flag at or above the threshold.",
        "kind": "A prediction.",
        "protocol": f"Study hash {view['hash']}." if view["hash"] else "",
        "code": "Clinloom; versions stand in the section on the run.",
        "characteristics": view["table1"] and "Table 1.",
        "performance": "; ".join(f"{t['label']} {t['value']} ({t['note']})" for t in told),
        "audit": f"Leakage audit: of {leakage['checked']} rows {leakage['differing']} differed."
        if leakage
        else "",
        "limits": " ".join(view["limits"]),
        "demographics": view["demographics"],
        "external": "By this run there was none: test rows are of the sources of the training.",
        "monitoring": "By clinloom monitor, whose reports say when validity, drift or a subgroup"
        " raise an alarm; how often is for a person to write.",
        "local": "By clinloom monitor, once outcomes of scored patients are known.",
    }
    return {key: value for key, value in out.items() if value}
