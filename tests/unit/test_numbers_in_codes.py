"""Numbers in codes: in one form where a column holds numbers, as they are where it is text."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from tests.unit.test_table_source import STATIC, read, written

from clinloom.run.dataset import written_twice
from clinloom.sources._rows.cells import numbers
from clinloom.sources._rows.mapping import When


def codes(file, template, **more):
    found = read(file, patient="id", time=STATIC, events=[{"code": template}], **more)
    return [event["code"] for event in found["events"]]


@pytest.mark.parametrize(
    "grades",
    [
        pa.array([1, 4, None]),
        pa.array([1.0, 4.0, None]),
        pa.array([1.0, 4.0, np.nan]),
        pa.array([1.0, 4.0, None], pa.float32()),
        pa.array([Decimal("1.0"), Decimal("4.0"), None]),
    ],
    ids=str,
)
def test_a_column_of_numbers_gives_the_same_codes_in_every_file(tmp_path, grades):
    pq.write_table(pa.table({"id": ["a", "b", "c"], "grade": grades}), tmp_path / "t.parquet")
    assert codes(tmp_path / "t.parquet", "GRADE//{grade}") == ["GRADE//1", "GRADE//4"]


def test_a_column_with_other_numbers_too_still_writes_whole_ones_as_whole(tmp_path):
    grades = pa.array([1.0, 2.5, np.nan, 250.0])
    pq.write_table(pa.table({"id": list("abcd"), "grade": grades}), tmp_path / "t.parquet")
    assert codes(tmp_path / "t.parquet", "G//{grade}") == ["G//1", "G//2.5", "G//250"]


@pytest.mark.parametrize("cells", [["1", "4", ""], ["1.0", "4.0", ""], ["+1", "04.", " "]])
def test_a_study_says_that_texts_are_numbers(tmp_path, cells):
    lines = [f"{name},{cell},x\n" for name, cell in zip("abc", cells, strict=True)]
    file = written(tmp_path, "id,grade,part\n" + "".join(lines))
    assert codes(file, "GRADE//{grade:number}") == ["GRADE//1", "GRADE//4"]
    assert codes(file, "{part}//{grade:number}") == ["x//1", "x//4"]


@pytest.mark.parametrize("cells", [["1", "4", ""], ["1.0", "4.0", "?"], ["+1", "04.", " "]])
@pytest.mark.parametrize("prefix", ["", "ITEM//"])
def test_the_codes_of_a_long_table_are_numbers_where_the_study_says_so(tmp_path, cells, prefix):
    lines = [f"{name},{cell},7\n" for name, cell in zip("aab", cells, strict=True)]
    file = written(tmp_path, "id,item,value\n" + "".join(lines))
    layout = {"patient": "id", "time": STATIC, "value": "value", "missing": ["?"]}
    plain = [cell for cell in cells if cell.strip(" ?")]
    for column, ones in (("item:number", ["1", "4"]), ("item", plain)):
        found = read(file, **layout, code={"column": column, "prefix": prefix})
        assert [e["code"] for e in found["events"]] == [f"{prefix}{one.strip()}" for one in ones]
        assert [r["reason"] for r in found["rejected"]] == ["no_code"]


def test_a_number_among_the_codes_may_tell_whose_a_file_is(tmp_path):
    file = written(tmp_path, "item,value\n7.0,4711\n1.0,5\n")
    coded = {"column": "item:number", "display": "value"}
    layout = {"patient": {"row": "7"}, "time": STATIC, "value": "value", "code": coded}
    found = read(file, **layout)
    assert [(e["patient"], e["code"]) for e in found["events"]] == [("4711", "7"), ("4711", "1")]


def test_texts_stay_as_they_are(tmp_path):
    file = written(tmp_path, "id,kind\n1,250\n2,250.0\n3,250.00\n4,007\n")
    assert codes(file, "ICD9CM//{kind}") == [
        f"ICD9CM//{c}" for c in ("250", "250.0", "250.00", "007")
    ]


def test_numbers_in_one_way():
    told = [
        "1",
        "1.0",
        "01",
        "+1",
        "1.",
        "-0.50",
        "2.500",
        "1e3",
        "12345678901234567890.0",
        "x1.0",
        "0",
    ]
    expected = ["1", "1", "1", "1", "1", "-0.5", "2.5", "1e3", "12345678901234567890", "x1.0", "0"]
    assert numbers(pa.array(told)).to_pylist() == expected


@pytest.mark.parametrize("template", ["A//{a:d}", "A//{a!r}", "A//{a:numbers}"])
def test_another_form_of_a_column_is_a_fault(tmp_path, template):
    with pytest.raises(ValidationError, match="grade:number"):
        codes(written(tmp_path, "id,a\n1,1\n"), template)


def test_codes_that_differ_in_a_zero_alone_are_told():
    (line,) = written_twice(["SITE//1", "SITE//1.0", "SITE//4.0", "SITE//2", "SITE//2.0"])
    assert line.startswith("SITE//1 and SITE//1.0 are two codes, and so are 2 in all")
    assert not list(written_twice(["SITE//1", "SITE//4.0"]))


@pytest.mark.parametrize(
    "cells", [["true", "1.0"], ["True", "TRUE"], ["yes", "1"], [True, True], [1.0, 1.0], [1, 1]]
)
def test_true_is_true_in_every_column(cells):
    other = {bool: False, float: 0.0, int: 0, str: "0.0"}[type(cells[0])]
    column = pa.array([*cells, other, None])
    for said, fits in ((True, [1, 1, 0, 0]), (False, [0, 0, 1, 0])):
        for when in (When(column="c", equals=said), When(column="c", one_of=[said])):
            assert when.rows(column, (), ".").astype(int).tolist() == fits
        assert When(column="c", none_of=[said]).rows(column, (), ".").tolist() == [
            not fit for fit in fits[:3]
        ] + [False]
