"""The cohort's flow hides what would tell of few, and nothing that stands on both sides of it."""

from __future__ import annotations

import itertools
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from clinloom.report import disclosure, page

FEW = 5


def boxes(*counts: tuple[int, int]) -> list[tuple[str, str, str]]:
    """Patients, moments and who was left out, of each step of a flow."""
    steps = [
        {"name": f"step {'abcdef'[n]}", "subjects": subjects, "rows": rows}
        for n, (subjects, rows) in enumerate(counts)
    ]
    made = page._flow(steps)["steps"]
    return [(step["count"], step["moments"], step["left_out"]) for step in made]


def test_patients_who_stand_on_both_sides_are_told_where_moments_are_hidden():
    assert boxes((100, 150), (100, 148), (100, 120)) == [
        ("100 patients", "150 prediction moments", ""),
        ("100 patients", "", "moments left out: hidden"),  # 148 would tell of two
        ("100 patients", "120 prediction moments", "moments left out: hidden"),
    ]


def test_what_changes_is_hidden_as_before():
    assert boxes((900, 900), (897, 897), (800, 800)) == [
        ("900 patients", "", ""),
        ("hidden", "", "left out: hidden"),
        ("800 patients", "", "left out: hidden"),
    ]


def test_that_nobody_was_left_out_is_told_between_hidden_steps_too():
    assert boxes((900, 900), (897, 897), (897, 897), (800, 800))[2] == ("hidden", "", "")


def test_patients_are_hidden_where_they_differ_on_either_side():
    found = boxes((100, 150), (100, 148), (80, 120))
    assert found[1] == ("hidden", "", "left out: hidden")


DROPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5)


@settings(deadline=None)
@given(DROPS)
def test_nothing_hidden_can_be_had_and_nothing_told_tells_of_few(drops):
    moments = itertools.accumulate([150, *(-a - b for a, b in drops)])
    subjects = itertools.accumulate([60, *(-a for a, _ in drops)])
    counts = list(zip(subjects, moments, strict=True))
    shown = disclosure.columns(counts)
    for which in (0, 1):
        column = [count[which] for count in counts]
        seen = [at for at, told in enumerate(shown) if told[which]]
        for one, other in itertools.pairwise(seen):
            assert not 0 < column[one] - column[other] < FEW
            if other > one + 1:
                assert column[one] != column[other], "what lies between would be known"
    assert all(not 0 < n < FEW for c, s in zip(counts, shown, strict=True) for n in c if all(s))
    assert [all(told) for told in shown] == disclosure.chain(counts)


def test_a_page_without_moments_tells_of_patients_alone():
    assert not re.search("moment", str(boxes((100, 0), (50, 0))))
