"""What is told instead of a word that is none: a near one, else those there are, not too many."""

from __future__ import annotations

import pytest

from clinloom import cli
from clinloom.errors import instead, nearest

KEYS = ["codes", "within", "statistics", "windows", "min_rows", "at", "which", "endpoint_url"]


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("withn", "within"),  # one letter is lacking
        ("within_", "within"),  # one is too many
        ("whihc", "which"),  # two changed places
        ("Windows", "windows"),  # the case is none
        ("statisitcs", "statistics"),
        ("ststisitcs", "statistics"),  # two slips, of eight letters or more
        ("mim_rwos", "min_rows"),
        ("paht", None),  # difflib's nearest was `at`
        ("width", None),
        ("codec_of", None),
        ("age", None),
        ("minimum_rows", None),
        ("endpoint", None),
        ("", None),
    ],
)
def test_only_what_is_a_slip_or_two_away_is_meant(word, near):
    assert nearest(word, KEYS) == near


def test_of_several_the_nearest_is_meant():
    assert nearest("LAB//sodiun", ["LAB//sodiums", "LAB//sodium", "LAB//sodi"]) == "LAB//sodium"
    assert nearest("ab", ["ac", "ab"]) == "ab"


def test_without_a_near_one_those_there_are_are_told_and_not_too_many():
    assert instead("withn", KEYS) == "did you mean 'within'?"
    assert instead("zone", ["path", "type"]) == "there are path, type"
    assert instead("zone", ["path", "type"], lead="valid:") == "valid: path, type"
    many = instead("zone", [f"option_{n}" for n in range(40)])
    assert many.startswith("there are option_0, option_1, ") and many.endswith(" and 28 more")
    assert instead("zone", []) == ""


def test_it_is_quick_among_very_many():
    codes = [f"LOINC//{n:05}-{n % 10}" for n in range(100_000)]
    assert nearest("LOINC//9999-12345", codes) is None


def test_the_command_line_lists_its_commands(capsys):
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["explode"])
    said = capsys.readouterr().err
    assert "did you mean" not in said and "there are doctor, synth, validate" in said
