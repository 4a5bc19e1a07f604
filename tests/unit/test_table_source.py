"""Tables become events: long and wide, whose they are, when, which values, and what is refused."""

from __future__ import annotations

import datetime as dt
import gzip
import zipfile
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clinloom import files
from clinloom.clean import clean
from clinloom.errors import SourceError
from clinloom.sources import table
from clinloom.sources._declared import TimeSpec, times
from clinloom.sources._rows import csv
from clinloom.sources._rows.cells import measured
from clinloom.sources._time import instants, iso
from clinloom.tables import ACQUIRED, PARCELS, conform

UTC = dt.UTC
MICROSECOND = dt.timedelta(microseconds=1)
LONG = {
    "patient": "pid",
    "time": {"column": "when"},
    "code": {"column": "what", "prefix": "LAB//"},
    "value": "value",
}
STATIC = {"static": True}


def read(path, pieces=None, **options):
    """All parcels together, conforming to their declarations."""
    chosen = table.Options.model_validate({"path": str(path), **options})
    found = files.listing(str(path), include=chosen.include)
    pieces = list(found) if pieces is None else pieces
    parts: dict[str, list[pa.Table]] = {name: [] for name in PARCELS}
    for parcel in table.read(pieces, chosen, "lab"):
        for name, rows in parcel.items():
            parts[name].append(conform(rows, PARCELS[name]))
    return {n: pa.concat_tables([PARCELS[n].empty, *p]).to_pylist() for n, p in parts.items()}


def written(tmp_path, text, name="t.csv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


def test_a_long_table_is_an_event_a_row(tmp_path):
    file = written(
        tmp_path,
        "pid,what,value,unit,when\n"
        "007,K,4.1,mmol/L,2024-03-01T08:00:00Z\n"
        "007,NOTE, fine ,,2024-03-01 09:00\n",
    )
    found = read(file, **LONG, unit="unit")
    assert found["events"][0] == {
        "patient": "007",
        "time": dt.datetime(2024, 3, 1, 8, tzinfo=UTC),
        "code": "LAB//K",
        "numeric_value": 4.1,
        "text_value": None,
        "unit": "mmol/L",
        "source": "lab",
        "record_id": "t.csv@25",
        "earlier": None,
        "time_text": None,
        "version": None,
    }
    second = found["events"][1]
    assert (second["numeric_value"], second["text_value"], second["unit"]) == (None, "fine", None)
    assert second["time"] == dt.datetime(2024, 3, 1, 9, tzinfo=UTC)
    assert found["links"] == [{"patient": "007", "other": "007"}]
    assert file.read_bytes()[25:].startswith(b"007,K")


@pytest.mark.parametrize(
    "cell, number, text",
    [
        ("1.5", 1.5, None),
        ("+2", 2.0, None),
        ("1e3", 1000.0, None),
        (" 7 ", 7.0, None),
        ("", None, ""),
        ("-1", None, ""),
        ("-1.0", None, ""),
        ("?", None, ""),
        ("nan", None, ""),
        ("inf", None, "inf"),
        ("1e999", None, "1e999"),
        ("<0.1", 0.1, "<0.1"),
        ("≥ 100", 100.0, ">=100"),
        (">-1", -1.0, ">-1"),
        ("<nan", None, "<nan"),
        ("<5 (low)", None, "<5 (low)"),
        ("1,5", None, "1,5"),
        ("0x10", None, "0x10"),
    ],
)
@pytest.mark.parametrize("beside", ["3", "word"])
def test_a_value_is_a_number_a_text_or_missing_whatever_stands_beside(cell, number, text, beside):
    numbers, texts, _ = measured(pa.array([cell, beside, None]), ("-1", "?"))
    assert (numbers[0].as_py(), texts[0].as_py()) == (number, text)
    assert (numbers[2].as_py(), texts[2].as_py()) == (None, "")


@pytest.mark.parametrize(
    "cell, number, text",
    [("1,75", 1.75, None), ("<0,01", 0.01, "<0,01"), ("7", 7.0, None), ("1.750", None, "1.750")],
)
def test_a_decimal_comma_is_told_by_the_study(cell, number, text):
    numbers, texts, _ = measured(pa.array([cell]), decimal=",")
    assert (numbers[0].as_py(), texts[0].as_py()) == (number, text)
    plain, _, _ = measured(pa.array([1.75]), decimal=",")  # a number already
    assert plain.to_pylist() == [1.75]


def test_texts_that_look_like_numbers_are_counted(tmp_path):
    rows = ('1,K,"1,75"', "1,K,1.75", "1,NA,1 234", "1,NA,high", "1,K,2024-01-01")
    file = written(tmp_path, "\n".join(["id,k,v", *rows, ""]))
    columns = {"code": {"column": "k"}, "value": "v", "time": STATIC}
    found = read(file, patient="id", **columns)
    counted = [(r["code"], r["rule"], r["action"], r["count"]) for r in found["ledger"]]
    told = ("text_like_number", "kept_as_text", 1)
    assert sorted(counted) == [("K", *told), ("NA", *told)]
    by_comma = read(file, patient="id", **columns, decimal=",")
    assert [e["numeric_value"] for e in by_comma["events"][:2]] == [1.75, None]


def test_a_wide_table_tells_many_events_a_row(tmp_path):
    file = written(
        tmp_path, "id;age;site;bad;seen\nA;80;back;1;05/02/2024\nB;?;;0;\nC;9;arm;1;31/02/2024\n"
    )
    found = read(
        file,
        patient="id",
        missing="?",
        time=STATIC,
        events=[
            {"code": "AGE", "value": "age", "unit": "a"},
            {"code": "SITE//{site}"},
            {"code": "SITE", "text": "site"},
            {
                "code": "BAD",
                "when": {"column": "bad", "equals": 1},
                "time": {"column": "seen", "format": "%d/%m/%Y"},
            },
        ],
    )
    told = [(e["patient"], e["code"], e["numeric_value"], e["text_value"]) for e in found["events"]]
    assert told == [
        ("A", "AGE", 80.0, None),
        ("B", "AGE", None, ""),
        ("C", "AGE", 9.0, None),
        ("A", "SITE//back", None, None),
        ("C", "SITE//arm", None, None),
        ("A", "SITE", None, "back"),
        ("B", "SITE", None, ""),
        ("C", "SITE", None, "arm"),
        ("A", "BAD", None, None),
    ]
    assert [e["unit"] for e in found["events"][:4]] == ["a", "a", "a", None]
    assert found["events"][8]["time"] == dt.datetime(2024, 2, 5, 23, 59, 59, 999_999, UTC)
    assert found["events"][8]["earlier"] == 86_400_000_000 - 1
    refused = [(r["patient"], r["reason"], r["code"]) for r in found["rejected"]]
    assert refused == [("B", "no_code", None), ("C", "invalid_date", "BAD")]


@pytest.mark.parametrize(
    ("when", "patients"),
    [
        ({"equals": 2}, "b"),
        ({"one_of": [1, "low"]}, "ae"),
        ({"none_of": [1, "low"]}, "bcd"),
        ({"above": 1}, "bc"),
        ({"at_least": 1}, "abc"),
        ({"below": 2}, "a"),
        ({"at_most": 2, "none_of": [1]}, "b"),
        ({"above": 1, "below": 3}, "b"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_are_chosen_by_values_lists_and_ranges(tmp_path, when, patients, kind):
    """An empty cell, a missing token and a number that is only a bound fit no range."""
    cells = ["1", "2.0", "30", "<1.5", "low", "", "-9"]
    file = tmp_path / f"t.{kind}"
    if kind == "csv":
        lines = [f"{p},{c}\n" for p, c in zip("abcdefg", cells, strict=True)]
        written(tmp_path, "id,grade\n" + "".join(lines))
    else:
        pq.write_table(pa.table({"id": list("abcdefg"), "grade": cells}), file)
    said = {"code": "GRADED", "when": {"column": "grade", **when}}
    found = read(file, patient="id", missing=[-9], time=STATIC, events=[said])
    assert "".join(e["patient"] for e in found["events"]) == patients


@pytest.mark.parametrize("yes", [True, "true"])
@pytest.mark.parametrize("cells", [["true", "false"], ["True", "FALSE"], ["yes", "no"], ["1", "0"]])
def test_true_is_what_a_table_calls_it(tmp_path, yes, cells):
    file = written(tmp_path, f"id,dead\na,{cells[0]}\nb,{cells[1]}\nc,\n")
    events = [
        {"code": "DEAD", "when": {"column": "dead", "equals": yes}},
        {"code": "ALIVE", "when": {"column": "dead", "equals": False}},
    ]
    found = read(file, patient="id", time=STATIC, events=events)
    assert [(e["patient"], e["code"]) for e in found["events"]] == [("a", "DEAD"), ("b", "ALIVE")]


def test_a_column_of_booleans_is_true_and_false(tmp_path):
    pq.write_table(
        pa.table({"id": ["a", "b", "c"], "dead": [True, False, None]}), tmp_path / "t.parquet"
    )
    said = {"code": "DEAD", "when": {"column": "dead", "equals": True}}
    found = read(tmp_path / "t.parquet", patient="id", time=STATIC, events=[said])
    assert [e["patient"] for e in found["events"]] == ["a"]


@pytest.mark.parametrize("when", [{}, {"above": 5, "below": 3}, {"above": 3, "at_most": 3}])
def test_a_condition_that_nothing_or_everything_fits_is_a_fault(when):
    with pytest.raises(ValidationError):
        table.Options.model_validate(
            {
                "path": "x",
                "patient": "id",
                "time": STATIC,
                "events": [{"code": "A", "when": {"column": "a", **when}}],
            }
        )


def test_a_missing_token_is_no_part_of_a_code(tmp_path):
    file = written(tmp_path, "id,kind\n1,250\n2,250.0\n3,?\n")
    given = {"missing": ["?"], "time": STATIC, "events": [{"code": "ICD9CM//{kind}"}]}
    found = read(file, patient="id", **given)
    assert [e["code"] for e in found["events"]] == ["ICD9CM//250", "ICD9CM//250.0"]
    assert [(r["patient"], r["reason"]) for r in found["rejected"]] == [("3", "no_code")]


def test_a_code_is_made_of_several_cells(tmp_path):
    file = written(tmp_path, "id,a,b\n1,x,y\n2,x,\n3,z,y\n")
    found = read(file, patient="id", time=STATIC, events=[{"code": "{a}//{b}"}])
    assert [e["code"] for e in found["events"]] == ["x//y", "z//y"]


ICU = {
    "patient": {"row": "RecordID"},
    "missing": [-1],
    "time": {"column": "Time", "offset": "HH:MM", "origin": "2012-01-01"},
    "code": {"column": "Parameter", "prefix": "ICU//"},
    "value": "Value",
}


def test_many_small_files_of_one_patient_each_are_parsed_as_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(1, 40):
            text = f"Time,Parameter,Value\n00:00,RecordID,{number}\n00:00,Age,-1\n"
            text += "".join(f"{h:02}:30,HR,{number}\n" for h in range(number))
            archive.writestr(f"in/{number}.txt", text if number % 2 else text.rstrip("\n"))
        archive.writestr("in/nobody.txt", "Time,Parameter,Value\n00:00,HR,1\n")
        archive.writestr("in/empty.txt", "")
    found = read(tmp_path / "a.zip", **ICU)
    assert len(found["events"]) == sum(n + 2 for n in range(1, 40))
    for event in found["events"]:
        name = event["record_id"].split("/")[-1]
        assert name.startswith(f"{event['patient']}.txt@")
        if event["code"] == "ICU//HR":
            assert event["numeric_value"] == float(event["patient"])
        elif event["code"] == "ICU//RecordID":  # an identifier is nobody's measurement
            assert event["numeric_value"] is None and event["text_value"] is None
        else:
            assert event["text_value"] == ""
    last = [e for e in found["events"] if e["patient"] == "39"][-1]
    assert last["time"] == dt.datetime(2012, 1, 2, 14, 30, tzinfo=UTC)
    assert {(r["file"], r["reason"]) for r in found["rejected"]} == {
        ("a.zip!/in/nobody.txt", "no_patient"),
        ("a.zip!/in/empty.txt", "empty_file"),
    }


def test_a_file_may_be_named_after_its_patient(tmp_path):
    written(tmp_path, "what,value\nHR,1\n", "p.1.csv")
    (tmp_path / "p2.csv.gz").write_bytes(gzip.compress(b"what,value\nHR,2\n"))
    found = read(
        tmp_path,
        patient={"file_name": True},
        time=STATIC,
        code={"column": "what"},
        value="value",
    )
    assert [(e["patient"], e["numeric_value"]) for e in found["events"]] == [("p.1", 1), ("p2", 2)]
    assert [e["record_id"] for e in found["events"]] == ["@11", "@11"]  # no patient's identifier


def test_bad_rows_are_refused_with_their_place_and_fail_nothing_else(tmp_path):
    text = (
        b"\xef\xbb\xbfpid,what,value,when\r\n"
        b"1,K,4,2024-01-01\r\n"
        b"\r\n"
        b"1,K,4\r\n"
        b"1,K,4,2024-01-01,9\r\n"
        b",K,4,2024-01-01\r\n"
        b"1,,4,2024-01-01\r\n"
        b"1,K,4,\r\n"
        b"1,\xff,4,2024-01-01\r\n"
        b"2,K,5,tomorrow\r\n"
    )
    found = read(written(tmp_path, text), **LONG)
    assert [(e["patient"], e["numeric_value"]) for e in found["events"]] == [("1", 4), ("2", 5)]
    assert found["events"][1]["time_text"] == "tomorrow"
    told = {r["reason"]: text[r["position"] :].split(b"\r\n")[0] for r in found["rejected"]}
    assert told == {
        "malformed_row": b"1,K,4,2024-01-01,9",
        "no_patient": b",K,4,2024-01-01",
        "no_code": b"1,,4,2024-01-01",
        "no_time": b"1,K,4,",
        "malformed_encoding": b"1,\xff,4,2024-01-01",
    }
    assert sum(r["reason"] == "malformed_row" for r in found["rejected"]) == 2


def test_an_encoding_may_be_declared(tmp_path):
    file = written(tmp_path, "id,ort\n1,Rücken\n".encode("latin-1"))
    events = [{"code": "SITE//{ort}"}]
    found = read(file, patient="id", time=STATIC, encoding="latin-1", events=events)
    assert found["events"][0]["code"] == "SITE//Rücken"


@pytest.mark.parametrize(
    "text, values, refused",
    [
        ('1,K,"a\nb",2024\n2,K,c,2024\n', ["a\nb", "c"], 0),
        ('1,K,"a ""b"", c",2024\n2,K,c,2024\n', ['a "b", c', "c"], 0),
        ('1,K,5" tube,2024\n2,K,c,2024\n', ['5" tube', "c"], 0),
        ('1,K,5" tube,2024\n2,K,c,2024\n2,K,6",2024\n', ['5" tube', "c", '6"'], 0),
        ('1,K,"a,2024\n2,K,c,2024\n', ["c"], 1),
    ],
)
def test_quotation_marks(tmp_path, text, values, refused):
    written(tmp_path, "pid,what,value,when\n" + text, "a.csv")
    written(tmp_path, "pid,what,value,when\n3,K,z,2024\n", "b.csv")
    found = read(tmp_path, **LONG)
    assert [e["text_value"] for e in found["events"]] == [*values, "z"]
    assert [r["reason"] for r in found["rejected"]] == ["malformed_row"] * refused


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path):
    file = written(tmp_path, "pid,what,valu,when\n1,K,4,2024\n")
    with pytest.raises(SourceError) as caught:
        read(file, **LONG)
    assert "no column 'value'" in str(caught.value)
    assert "did you mean 'valu'?" in str(caught.value)
    assert "t.csv" in str(caught.value)


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_however_a_file_is_cut_the_answer_is_the_same(tmp_path, size, monkeypatch):
    rows = [f"{n % 3},K,{n},2024-01-{n % 28 + 1:02}" for n in range(30)]
    rows[7], rows[11] = "broken", ",K,1,2024-01-01"
    file = written(tmp_path, "\n".join(["pid,what,value,when", *rows]))
    (piece,) = files.listing(str(file))
    cut = [
        files.Piece(piece.name, piece.path, size, None, start, min(start + size, piece.size))
        for start in range(0, piece.size, size)
    ]
    whole = read(file, **LONG)
    monkeypatch.setattr(csv, "BATCH", 64)
    for pieces in (cut, [piece]):
        parts = read(file, pieces, **LONG)
        order = {"key": lambda row: str(row["position"])}
        assert sorted(parts.pop("rejected"), **order) == sorted(whole["rejected"], **order)
        assert parts["events"] == whole["events"]
        assert parts["links"] == whole["links"]
    assert len(whole["events"]) == 28


def test_parquet_keeps_its_types(tmp_path):
    rows = {
        "pid": pa.array([1.0, None, 3.0]),  # integers that a null made floating
        "value": pa.array([1.5, float("nan"), -1.0]),
        "flag": pa.array([True, False, None]),
        "day": pa.array([dt.date(2024, 1, 2)] * 3),
        "at": pa.array([dt.datetime(2024, 1, 2, 3)] * 3, pa.timestamp("ns", tz="Europe/Berlin")),
    }
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    found = read(
        tmp_path,
        patient="pid",
        missing=[-1],
        time={"column": "day"},
        events=[
            {"code": "V", "value": "value"},
            {"code": "F", "value": "flag", "time": {"column": "at"}},
            {"code": "D", "value": "value", "time": {"column": "value", **DAYS}},
        ],
    )
    told = [(e["patient"], e["numeric_value"], e["text_value"]) for e in found["events"]]
    assert told[:4] == [("1", 1.5, None), ("3", None, ""), ("1", 1.0, None), ("3", None, "")]
    assert found["events"][0]["record_id"] == "t.parquet#0"
    assert found["events"][0]["time"] == dt.datetime(2024, 1, 2, 23, 59, 59, 999_999, UTC)
    assert found["events"][0]["earlier"] == 86_400_000_000 - 1
    assert found["events"][2]["time"] == dt.datetime(2024, 1, 2, 3, tzinfo=UTC)
    assert found["events"][4]["time"] == dt.datetime(2012, 1, 2, 12, tzinfo=UTC)
    assert [r["reason"] for r in found["rejected"]] == ["no_patient"] * 3


DAYS = {"offset": "days", "origin": "2012-01-01"}


@pytest.mark.parametrize(
    "spec, cell, time",
    [
        ({"offset": "HH:MM", "origin": "2012-01-01"}, "49:05", dt.datetime(2012, 1, 3, 1, 5)),
        ({"offset": "HH:MM", "origin": "2012-01-01"}, "1:75", None),
        (DAYS, "-0.5", dt.datetime(2011, 12, 31, 12)),
        (DAYS, "soon", None),
        (DAYS, "nan", None),
        (DAYS, "1e7", None),
        ({"offset": "seconds", "origin": "2012-01-01"}, "90", dt.datetime(2012, 1, 1, 0, 1, 30)),
        (
            {"offset": "minutes", "origin": "1850-01-01"},
            "93221028",
            dt.datetime(1850, 1, 1) + dt.timedelta(minutes=93221028),
        ),
        ({"offset": "hours", "origin": "2012-01-01T06:00"}, "2", dt.datetime(2012, 1, 1, 8)),
        ({"format": "%d.%m.%Y %H:%M"}, "1.2.2024 3:04", dt.datetime(2024, 2, 1, 3, 4)),
        ({"format": "%d.%m.%Y"}, "31.02.2024", None),
        ({"format": "%d.%m.%Y %H:%M:%S"}, "01.02.2024 03:04:05", dt.datetime(2024, 2, 1, 3, 4, 5)),
        (
            {"format": "%Y%m%d%H%M%S.%f"},
            "20240201030405.5",
            dt.datetime(2024, 2, 1, 3, 4, 5, 500000),
        ),
        ({"zone": "Europe/Berlin"}, "2024-07-01 12:00", dt.datetime(2024, 7, 1, 10)),
        ({"zone": "Europe/Berlin"}, "2024-07-01T12:00:00Z", dt.datetime(2024, 7, 1, 12)),
        ({"zone": "Europe/Berlin"}, "2024-03-31T02:30:00", dt.datetime(2024, 3, 31, 1)),
    ],
)
@pytest.mark.parametrize("beside", ["", "garbage"])
def test_times_from_a_column(spec, cell, time, beside):
    made = TimeSpec.model_validate({"column": "t", **spec})
    found = times(made, pa.array([cell, beside, None]), 3)
    assert found.time[0].as_py() == (time and time.replace(tzinfo=UTC))
    zone = f"[{spec['zone']}]" if "zone" in spec else ""
    unread = beside + zone if beside else None
    assert found.text.to_pylist() == [None if time else cell, unread, None]
    assert made.declared == ("zone" not in spec)


@pytest.mark.parametrize(
    "form, told, begin, end",
    [
        ("%Y", "2019", (2019, 1, 1), (2020, 1, 1)),
        ("%m/%Y", "02/2024", (2024, 2, 1), (2024, 3, 1)),
        ("%d.%m.%Y", "31.03.2024", (2024, 3, 31), (2024, 4, 1)),
        (None, "2019", (2019, 1, 1), (2020, 1, 1)),
        (None, "2024-02", (2024, 2, 1), (2024, 3, 1)),
        (None, "2024-03-31", (2024, 3, 31), (2024, 4, 1)),
    ],
)
def test_a_date_is_known_at_its_end_in_its_zone_and_happened_from_its_begin_on(
    tmp_path, form, told, begin, end
):
    berlin = ZoneInfo("Europe/Berlin")
    spec = {"column": "when", "zone": "Europe/Berlin", **({"format": form} if form else {})}
    file = written(tmp_path, f"id,when\nA,{told}\n")
    (event,) = read(file, patient="id", time=spec, events=[{"code": "SEEN"}])["events"]
    assert event["time"] == dt.datetime(*end, tzinfo=berlin).astimezone(UTC) - MICROSECOND
    begun = dt.datetime(*begin, tzinfo=berlin).astimezone(UTC)
    assert event["time"] - event["earlier"] * MICROSECOND == begun


def test_a_birth_is_the_day_that_is_told_whatever_the_zone(tmp_path):
    """On which ages are counted; a death of the same column is known at the end of its day."""
    file = written(tmp_path, "id,what,day\nA,MEDS_BIRTH,2000-03-01\nA,MEDS_DEATH,2024-03-01\n")
    for zone, hour in (("Asia/Tokyo", 15), ("America/New_York", 5), ("UTC", 0)):
        spec = {"column": "day", "zone": zone}
        birth, death = read(file, patient="id", time=spec, code={"column": "what"})["events"]
        assert (birth["time"], birth["earlier"]) == (dt.datetime(2000, 3, 1, tzinfo=UTC), None)
        assert death["time"] > dt.datetime(2024, 3, 1, hour if hour < 15 else 0, tzinfo=UTC)
        assert (death["time"] - death["earlier"] * MICROSECOND).hour == hour


def test_a_declared_format_binds_and_a_free_one_keeps_its_zone(tmp_path):
    """What is written otherwise is refused where it stands, or left to the cleaning to read."""
    file = written(tmp_path, "id,seen\nA,13/05/2024\nB,05/13/2024\n")
    events = [{"code": "SEEN"}]
    spec = {"column": "seen", "format": "%d/%m/%Y"}
    found = read(file, patient="id", time=spec, events=events)
    end = dt.datetime(2024, 5, 13, 23, 59, 59, 999_999, UTC)
    assert [e["time"] for e in found["events"]] == [end]
    (refused,) = found["rejected"]
    assert (refused["reason"], refused["patient"], refused["position"]) == ("invalid_date", "B", 21)
    spec = {"column": "seen", "zone": "Europe/Berlin"}
    found = read(file, patient="id", time=spec, events=events)
    texts = ["13/05/2024[Europe/Berlin]", "05/13/2024[Europe/Berlin]"]
    assert [e["time_text"] for e in found["events"]] == texts and not found["rejected"]


def test_a_column_of_durations_tells_its_own_unit():
    spec = TimeSpec(column="t", offset="hours", origin="2012-01-01")
    found = times(spec, pa.array([90, None], pa.duration("s")), 2)
    assert found.time.to_pylist() == [dt.datetime(2012, 1, 1, 0, 1, 30, tzinfo=UTC), None]


def test_one_time_for_all_and_none_at_all():
    fixed = times(TimeSpec(at="2024-01-01"), None, 2)
    assert fixed.time.to_pylist() == [dt.datetime(2024, 1, 1, tzinfo=UTC)] * 2
    static = times(TimeSpec(static=True), None, 2)
    assert static.time.null_count == 2


@given(
    st.lists(
        st.one_of(
            st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)).map(
                dt.datetime.isoformat
            ),
            st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)).map(
                lambda t: t.isoformat() + "+05:30"
            ),
            st.dates().map(dt.date.isoformat),
            st.from_regex(
                r"[0-9]{4}(-[0-9]{2}){0,3}[T ]?([0-9]{2}:?){0,4}(Z|[+-][0-9]{2}:?[0-9]{2})?",
                fullmatch=True,
            ),
            st.text(max_size=12),
        ),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
def test_iso_times_read_together_or_alone_are_the_same(texts, space):
    found = instants(pa.array(texts, pa.string()), space=space)
    alone = [iso(text.strip(), space=space) for text in texts]
    begins = found.time if found.begin is None else pc.coalesce(found.begin, found.time)
    assert begins.cast(pa.int64()).to_pylist() == alone
    ends = [instants(pa.array([text]), space=space).time[0] for text in texts]
    assert found.time.to_pylist() == [end.as_py() for end in ends]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"events": [{"code": "X"}]}, "a long table"),
        ({"code": None}, "a long table"),
        ({"time": None}, "`time` is required"),
        ({"patient": {"file_name": False}}, "file_name"),
        ({"time": {"column": "a", "static": True}}, "give one of"),
        ({"time": {"column": "a", "offset": "days"}}, "go together"),
        ({"time": {"column": "a", "zone": "Mars/Olympus"}}, "IANA"),
        ({"code": None, "value": None, "events": [{"code": "X//{}"}]}, "braces"),
    ],
)
def test_a_mapping_that_says_too_much_or_too_little_is_a_fault(change, message):
    with pytest.raises(ValidationError, match=message):
        table.Options.model_validate({"path": "x", **LONG, **change})


def test_a_first_line_that_is_a_patients_is_not_shown(tmp_path):
    """A file without a header: the message names what is missing, and no cell."""
    file = written(tmp_path, "4711,Meier,Anna,1950-02-03\n4712,Huber,Ida,1951-02-03\n")
    with pytest.raises(SourceError) as caught:
        read(file, patient="pid", time=STATIC, events=[{"code": "AGE", "value": "age"}])
    text = str(caught.value)
    assert "no column 'pid'" in text and "first line" in text
    assert not [cell for cell in ("4711", "Meier", "Anna", "1950") if cell in text]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [300, 1000, 4096])
def test_a_quoted_line_break_at_the_edge_of_a_range_costs_no_row(tmp_path, monkeypatch, ends, size):
    """Whatever the cut, each row is of the one range in which it begins."""
    monkeypatch.setattr("clinloom.files.pieces.RANGE", size)
    rng = np.random.default_rng(size)
    notes = [
        "short",
        'he said ""no"", then left',
        ends.join(["first line", "a, b and c", "", "third; with marks"]),
        ends.join(f"line {n} of a long note" for n in range(40)),
    ]
    rows = [f'{n},2024-01-02,"{notes[k]}",{n}.5' for n, k in enumerate(rng.integers(0, 4, 400))]
    text = ends.join(["who,at,note,value", *rows, ""])
    (tmp_path / "notes.csv").write_bytes(text.encode())
    said = [{"code": "V", "value": "value"}, {"code": "NOTE", "text": "note"}]
    options = {"path": str(tmp_path), "patient": "who", "time": {"column": "at"}, "events": said}
    made = table.Options.model_validate(options)
    units = list(table.plan(made, "sources.notes"))
    assert len(units) > 3
    parcels = [parcel for unit in units for parcel in table.read([unit], made, "notes")]
    assert not [parcel for parcel in parcels if "rejected" in parcel]
    told = [parcel["events"].to_pylist() for parcel in parcels if "events" in parcel]
    found = [event for events in told for event in events]
    values = sorted(e["numeric_value"] for e in found if e["code"] == "V")
    assert values == [n + 0.5 for n in range(400)]
    lengths = [len((line + ends).encode()) for line in ("who,at,note,value", *rows)]
    begins = {int(e["record_id"].split("@")[1]) for e in found}
    assert begins == set(np.cumsum(lengths)[:-1].tolist())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_which_codes_owe_a_value_is_told_and_never_assumed(tmp_path, kind):
    """Admissions and deaths have none; the cleaning refused every one of them."""
    rows = {
        "pid": [1, 1, 1, 1],
        "what": ["IN", "K", "K", "DEATH"],
        "value": [None, 4.1, None, None],
        "when": ["2024-03-01T08:00:00Z"] * 4,
    }
    file = tmp_path / f"t.{kind}"
    if kind == "csv":
        pa_csv.write_csv(pa.table(rows), file)
    else:
        pq.write_table(pa.table(rows), file)

    def cleaned(**more):
        events = read(file, **LONG, **more)["events"]
        acquired = [{**e, "subject_id": 1} for e in events]
        made = clean(conform(pa.Table.from_pylist(acquired), ACQUIRED).sort_by("code"), {})
        return made["events"]["code"].to_pylist(), made["rejected"]["reason"].to_pylist()

    assert cleaned() == (["LAB//DEATH", "LAB//IN", "LAB//K", "LAB//K"], [])
    kept = ["LAB//DEATH", "LAB//IN", "LAB//K"]
    assert cleaned(valued="LAB//K*") == (kept, ["missing_value"])
    assert cleaned(missing=[4.1])[1] == ["missing_value"]  # a token says so itself


def test_owed_values_need_their_column(tmp_path):
    long = {k: v for k, v in LONG.items() if k != "value"}
    with pytest.raises(ValidationError, match="`valued` needs"):
        table.Options.model_validate({"path": str(tmp_path), **long, "valued": "LAB//*"})


WIDE = "id,day,age,sex,?,note\n7,2024-01-02,61,F,1.5,fine\n8,2024-01-02,?,M,,\n"


def test_all_other_columns_may_be_events_at_once(tmp_path):
    made = {
        "time": {"column": "day", "zone": "UTC"},
        "missing": "?",
        "columns": {"prefix": "X//", "without": "id"},
    }
    file = written(tmp_path, WIDE)
    with pytest.raises(ValidationError):
        table.Options.model_validate({"path": str(file), "patient": "id", **made})
    made["columns"]["without"] = ["note"]
    found = read(file, patient="id", **made)
    told = {
        (e["patient"], e["code"]): (e["numeric_value"], e["text_value"]) for e in found["events"]
    }
    assert told == {
        ("7", "X//age"): (61.0, None), ("7", "X//sex"): (None, "F"), ("7", "X//?"): (1.5, None),
        ("8", "X//sex"): (None, "M"),
    }  # fmt: skip
    assert {(r["code"], r["rule"], r["count"]) for r in found["ledger"]} == {
        ("X//age", "empty_cell", 1), ("X//?", "empty_cell", 1),
    }  # fmt: skip
    said = [{"code": "AGE", "value": "age", "unit": "a"}]
    both = read(file, patient="id", events=said, **made)["events"]
    assert {e["code"] for e in both} == {"AGE", "X//sex", "X//?"}


def test_each_row_may_be_a_patient_of_its_own(tmp_path):
    said = {"time": {"at": "2024-01-02"}, "columns": {"without": ["id", "day"]}}
    for suffix in ("csv", "parquet"):
        file = written(tmp_path, WIDE, f"one.{suffix}")
        if suffix == "parquet":
            pq.write_table(pa.table({"id": [7, 8], "day": ["a", "b"], "age": [61, 62]}), file)
        found = read(file, patient={"each_row": True}, **said)["events"]
        ages = [e for e in found if e["code"] == "age"]
        assert len({e["patient"] for e in ages}) == 2
        assert {e["patient"] for e in found} == {e["record_id"] for e in found}
    with pytest.raises(ValidationError, match="give one of"):
        table.Options(path="x", patient={"each_row": True, "file_name": True}, **said)


def test_an_event_without_a_time_may_be_static(tmp_path):
    rows = {"pid": [1, 1], "what": ["SEX//F", "K"], "when": [None, "2024-01-02T03:04:05Z"]}
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({**rows, "value": pa.nulls(2, pa.float64())}), file)
    found = read(file, **LONG)
    assert [r["reason"] for r in found["rejected"]] == ["no_time"]
    kept = read(file, **{**LONG, "time": {"column": "when", "empty": "static"}})
    assert not kept["rejected"] and [e["time"] is None for e in kept["events"]] == [True, False]
    with pytest.raises(ValidationError, match="`empty` says"):
        TimeSpec(static=True, empty="static")
