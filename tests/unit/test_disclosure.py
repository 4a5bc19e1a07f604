"""Small counts: none is shown anywhere in the report, and none can be had from what is shown."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinloom.report import baseline, disclosure, page, render
from clinloom.run.record import warnings

FEW = 5


def flow(*subjects: int, **ends: int) -> list[dict]:
    names = ["patients", *(f"step {'abc'[n - 1]}" for n in range(1, len(subjects)))]
    steps = [{"name": n, "subjects": c, "rows": c} for n, c in zip(names, subjects, strict=True)]
    return [*steps, *({"name": n, "subjects": c, "rows": c} for n, c in ends.items())]


def part(rows: int, positive: int) -> dict[str, int]:
    return {"rows": rows, "subjects": rows, "positive": positive}


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5))
def test_no_hidden_part_of_a_total_can_be_had(numbers):
    shown = disclosure.parts(numbers)
    hidden = [n for n, seen in zip(numbers, shown, strict=True) if not seen]
    assert all(n >= FEW for n, seen in zip(numbers, shown, strict=True) if seen)
    if hidden and any(shown):
        assert len(hidden) > 1 and sum(hidden) >= FEW
    if min(numbers) >= FEW:
        assert all(shown)


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=8))
def test_no_two_counts_that_are_shown_of_those_that_fall_tell_of_few(drops):
    counts = [(n,) for n in itertools.accumulate([100, *(-d for d in drops)])]
    shown = disclosure.chain(counts)
    seen = [n for (n,), told in zip(counts, shown, strict=True) if told]
    assert not [b - a for a, b in itertools.pairwise(seen[::-1]) if 0 < b - a < FEW]
    assert shown[-1] == (not 0 < counts[-1][0] < FEW)


def test_the_flow_hides_a_step_that_few_left_and_what_would_tell_them():
    made = page._flow(flow(900, 897, 800, 798, outcome=300))
    assert [step["count"] for step in made["steps"]] == [
        "900 patients",
        "hidden",  # 897 would tell of three
        "hidden",  # 800 would tell of two
        "798 patients",
    ]
    assert not re.search(r"\b(2|3|97)\b", " ".join(step["left_out"] for step in made["steps"]))
    assert [end["count"] for end in made["ends"]] == ["300 patients", "498 patients"]


def test_the_ends_of_the_flow_hide_few_and_another_with_them():
    made = page._flow(flow(900, 800, **{"competing event": 3}, outcome=300))
    assert [(end["count"], end["share"]) for end in made["ends"]] == [
        ("300 patients", "37.5%"),  # of whom the split tells, too
        ("<5 patients", ""),
        ("hidden", ""),
    ]


def test_the_ends_of_the_flow_hide_the_outcome_too_where_few_are_without_it():
    [having, without] = page._flow(flow(900, 303, outcome=300))["ends"]
    assert (having["count"], without["count"]) == ("hidden", "<5 patients")


@pytest.mark.parametrize(
    ("train", "test", "positive"),
    [
        (part(700, 140), part(300, 60), ["140", "60", "200"]),
        (part(700, 140), part(300, 3), ["hidden", "<5", "143"]),
        (part(700, 2), part(300, 1), ["<5", "<5", "<5"]),
        (part(700, 140), part(300, 298), ["hidden", "hidden", "438"]),  # two have it not
        (part(10, 8), part(9, 8), ["hidden", "hidden", "hidden"]),  # three have it not
    ],
)
def test_the_split_hides_few_outcomes_of_a_part_and_their_shares(train, test, positive):
    made = page._split({"train": train, "test": test})
    assert [row["positive"] for row in made["rows"]] == positive
    for row in made["rows"]:
        assert (row["share"] == "–") == (not row["positive"].isdigit())


RARE = [f"codes|ICD10CM//A{n}|present|all" for n in range(3)]


def record(having: int, without: int, *, test: int) -> dict:
    """A cohort whose test part holds so few outcomes."""
    rows = having + without
    values = np.zeros((rows, 3))
    values[: having - 1, 0] = values[having + 2 :, 0] = 1
    values[:40, 1] = 1
    values[50:53, 2] = np.nan
    return {
        "flow": flow(rows + 3, rows, outcome=having),
        "split": {"train": part(rows - 50, having - test), "test": part(50, test)},
        "table1": baseline.table_one(RARE, values, np.arange(rows) < having),
        "sources": [{"name": "ehr", "type": "fhir", "events": 9000, "images": 3}],
        "ledger": [
            {"rule": "duplicate", "action": "removed", "code": code, "count": count}
            for code, count in (("ICD10CM//A1", 900), ("ICD10CM//A2", 40), ("ICD10CM//A3", 2))
        ],
        "rejected": [{"source": "ehr", "stage": "clean", "reason": "no_time", "count": 2}],
        "warnings": warnings({}, part(50, test)) if test < FEW else [],
    }


@pytest.mark.parametrize(("having", "test"), [(43, 3), (4, 1), (3, 3)])
def test_the_whole_page_tells_no_small_count(having, test):
    made = render(record(having, 97, test=test)).split('<section id="run">')[0]
    cells = re.findall(r"<(?:td|strong|small|span|li)(?: [^>]*)?>([^<]*)", made)
    told = [re.sub(r"A[1-3]|&lt;5|\d+ more|[\d.]+%|0\.5|below 5", "", cell) for cell in cells]
    numbers = {int(n.replace(",", "")) for cell in told for n in re.findall(r"[\d,]*\d", cell)}
    assert 97 + having in numbers, "everybody is counted"
    assert not numbers & {1, 2, 3, 4}
    assert not numbers & {having - test, 97 + having + 3, *([97, having] if having < FEW else [])}


def test_table_one_gives_no_group_away_by_its_total_its_shares_or_what_is_missing():
    made = record(4, 96, test=1)["table1"]
    assert (made[0]["overall"], made[0]["without"], made[0]["with"]) == ("100", "hidden", "<5")
    assert not [cell for row in made[1:] for cell in row.values() if "%)" in cell]
    missing = record(43, 97, test=20)["table1"][3]
    assert missing["missing"] == "<5" and "%" not in missing["overall"]


def test_a_rule_names_no_code_that_befell_few_nor_lets_it_be_counted():
    [row] = page._ledger(record(43, 97, test=20)["ledger"])
    assert (row["count"], row["codes"]) == ("942", "ICD10CM A1 900 · 2 more")
