"""Whether a file is read by its lines: one rule, whether it is cut or not."""

from __future__ import annotations

import pytest

from clinloom.files import PARQUET, Given, json_lines
from clinloom.files.pieces import of_lines
from clinloom.sources import fhir

FILES = [
    ("a.json", b'{"a": 1}\n{"a": 2}\n', True),
    ("a.json", b'\xef\xbb\xbf {"a": 1}\r\n{"a": 2}', True),
    ("a.json", b'{"a": 1}\n', False),  # one value is no line of several
    ("a.json", b'[{"a": 1}, {"a": 2}]\n', False),
    ("a.json", b'{\n"a": 1}\n', False),
    ("a.json", b'{"a": 1,\n"b": 2}\n', False),
    ("a.json", b"[1, 2]\n[3]\n", True),
    ("a.json", b'{"a": "\xff"}\n{"a": 2}\n', True),  # one line's broken text is its own fault
    ("a.ndjson", b"{\n", True),
    ("A.NDJSON.GZ", b'{"a": 1}', True),
    ("a.json", b'"one"\n{"a": 2}\n', True),
    ("a.json", b"null\n1\n", True),
]


@pytest.mark.parametrize(("name", "data", "lined"), FILES)
def test_a_file_is_of_lines_in_one_sense(name, data, lined):
    assert of_lines(name, data) == lined
    assert json_lines(name, data) == lined


def test_rows_are_lines_and_no_json():
    assert of_lines("a.csv", b"id,code\n1,2\n") and not json_lines("a.csv", b"id,code\n1,2\n")
    assert not of_lines("a.parquet", PARQUET + b"{}\n{}\n")


@pytest.mark.parametrize(
    ("data", "positions"),
    [
        (b'"one"\n17\nnull\n', [0, 6, 9]),
        (b'{"a": "\xff"}\n{"resourceType": "X"}\n[]\n', [0, 33]),
        (b"<Patient>\n <id/>\n</Patient>\n", [0]),
    ],
)
def test_what_is_no_resource_is_refused_where_it_stands(data, positions):
    options = fhir.Options(path="here")
    tables = [p["rejected"] for p in fhir.read([Given("a.json", data)], options, "ehr")
              if "rejected" in p]  # fmt: skip
    assert [row["position"] for t in tables for row in t.to_pylist()] == positions
