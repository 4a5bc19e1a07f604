"""Lines of one layout, cut into columns together, give what each gives when it is decoded."""

from __future__ import annotations

import json
import random
import re

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinloom.files import Given
from clinloom.sources import fhir
from clinloom.sources._fhir import plain
from clinloom.sources._fhir.layouts import LEAST, NUMERIC, Layout, Lines, Part, values
from clinloom.sources._fhir.usual import LESSONS, Usual
from clinloom.tables import PARCELS, conform

TIMES = ("2024-03-01T08:00:00Z", "2024-03-01T09:30:00.123+01:00", "2024-03", "03/01/2024 08:00")
ODD_TIMES = ("", " ", "soon", " 2024-03-01T08:00:00Z")
NUMBERS = "1.5 0 -0 -0.0 7 0.10 1e5 1.0E+400 1e400 -2e-7 01 1. .5 +1 12345678901234567890".split()
NUMBERS += ["0.1234567890123456789", "9" * 400, "123456789012345.123456789012345", '"3.5"', "null"]
TEXTS = (
    "",
    "mg/dL",
    "µg/L",
    "10*9/L",
    "a\\u00e9b",
    'a\\"b',
    "a\\\\",
    "a\\/b",
    "\t",
    "\\q",
    "{}[],:",
)
JSON_TEXTS = st.text(max_size=12)
FAST = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def read(data: bytes, **options) -> dict[str, list[dict]]:
    """Every row that a file of lines gives, table by table."""
    parts: dict[str, list[pa.Table]] = {name: [table.empty] for name, table in PARCELS.items()}
    chosen = fhir.Options(path="/records", **options)
    for parcel in fhir.read([Given("records.ndjson", data)], chosen, "ehr"):
        for name, table in parcel.items():
            parts[name].append(conform(table, PARCELS[name]))
    return {name: pa.concat_tables(tables).to_pylist() for name, tables in parts.items()}


def malformed(line: bytes):
    raise msgspec.DecodeError("no line is of the usual shape")


def same(data: bytes, monkeypatch, **options) -> tuple[dict[str, list[dict]], int]:
    """What a file gives, which is what it gives where each line is decoded alone, bit for bit; and
    how many of its lines were read by layouts."""
    quick = 0
    usual = Usual.read

    def counted(self, lines):
        nonlocal quick
        before = len(lines.left)
        found = usual(self, lines)
        quick += before - len(lines.left)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Usual, "read", counted)
        found = read(data, **options)
    with monkeypatch.context() as patch:
        patch.setattr(plain, "_decode", malformed)
        slow = read(data, **options)
    for name, rows in slow.items():
        assert repr(found[name]) == repr(rows), name  # repr: -0.0 is not 0.0
    return found, quick


def line(number: int, value: str = "1.5", **more: str) -> str:
    """An Observation as one exporter writes it."""
    parts = {
        "resourceType": '"Observation"',
        "id": f'"o{number}"',
        "status": '"final"',
        "code": f'{{"coding":[{{"system":"http://loinc.org","code":"{number % 7}-0"}}]}}',
        "subject": f'{{"reference":"Patient/p{number % 5}"}}',
        "effectiveDateTime": f'"2024-03-01T08:{number % 60:02}:00Z"',
        "issued": f'"2024-03-01T09:{number % 60:02}:00Z"',
        "valueQuantity": f'{{"value":{value},"unit":"mg/dL","code":"mg/dL"}}',
        **more,
    }
    return "{" + ",".join(f'"{name}":{part}' for name, part in parts.items() if part) + "}"


def test_lines_of_one_layout_are_read_together(monkeypatch):
    lines = [line(n, f"{n / 7:.3f}") for n in range(500)]
    found, quick = same("\n".join(lines).encode(), monkeypatch)
    assert quick == len(found["events"]) == 500
    assert [e["numeric_value"] for e in found["events"]] == [
        float(f"{n / 7:.3f}") for n in range(500)
    ]


def test_layouts_mixed_with_whatever_is_none_keep_the_order(monkeypatch):
    panel = '[{"code":{"coding":[{"code":"a"}]},"valueInteger":1}]'
    answer = '{"coding":[{"system":"http://snomed.info/sct","code":"10828004"}]}'
    both = '{"coding":[{"system":"http://loinc.org","code":"1-0"},{"code":"own"}]}'
    kinds = [
        {},
        {},
        {},
        {"valueQuantity": "", "valueCodeableConcept": answer},
        {"valueQuantity": "", "valueString": '"positive"'},
        {"issued": "", "status": '"amended"'},
        {"component": panel},
        {"code": both},
        {"status": '"entered-in-error"'},
    ]
    chance = random.Random(1)
    lines = [line(n, **chance.choice(kinds)) for n in range(3000)]
    for rare in (3, 30, 300):  # few strange lines are put among the others otherwise than many
        some = [text if n % rare else text[:-9] for n, text in enumerate(lines)]
        found, quick = same("\n".join(some).encode(), monkeypatch, codings="first")
        assert quick > 1200
        assert [r["code"] for r in found["ledger"] if r["rule"] == "other_coding"]


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
@pytest.mark.parametrize("signs", [(",", ":"), (", ", ": "), (" ,", "  : ")])
def test_blanks_between(monkeypatch, end, signs):
    written = [json.dumps(json.loads(line(n)), separators=signs) for n in range(200)]
    _, quick = same(end.join(written).encode(), monkeypatch)
    assert quick >= 199  # the last line has no end


def test_numbers_are_the_same_to_the_last_bit(monkeypatch):
    chance = random.Random(2)
    drawn = [repr(chance.uniform(-1, 1) * 10 ** chance.randrange(-9, 15)) for _ in range(1000)]
    drawn += [f"{chance.randrange(10**15)}.{chance.randrange(10**15):015}" for _ in range(1000)]
    found, quick = same("\n".join(map(line, range(2000), drawn)).encode(), monkeypatch)
    assert quick > 1500
    assert [e["numeric_value"] for e in found["events"]] == list(map(float, drawn))


def test_odd_numbers_go_the_exact_way(monkeypatch):
    assert [n for n in NUMBERS if NUMERIC.match(n.encode())] == [
        "1.5",
        "0",
        "-0.0",
        "7",
        "0.10",
    ] + ["123456789012345.123456789012345"]
    lines = [line(n, NUMBERS[n % len(NUMBERS)]) for n in range(2000)]
    found, quick = same("\n".join(lines).encode(), monkeypatch)
    assert quick and found["rejected"]


@pytest.mark.parametrize(
    "spoilt",
    [
        b'"id":"o7","id":"o8"',
        b'"id":"o7\\u0038"',
        b'"id":"o\xff"',
        b'"id":"o\xed\xa0\x80"',
        b'"id":"o\x01"',
        b'"id":""',
        b'"id":"o7","x":[1,[2,{"y":[]}],null]',
        b'"id":"o7","x":{"id":"z"',
        b'"i\\u0064":"o7"',
        b'"id": "o7"',
        b'"id":7',
        b'"id":"o7","component":[]',
        b'"id":"o7","meta":{"versionId":"2"}',
        b'"id":"o7","meta":{"lastUpdated":"2024-03-05T00:00:00Z","versionId":"2"}',
        b'"id":"o7","valueString":"twice"',
        b'"id":"o7","subject":{"reference":"Patient/other"}',
        b'"id":"o7","effectiveInstant":"2024-03-05T00:00:00Z","effectivePeriod":{}',
    ],
)
@pytest.mark.parametrize("every", [1, 3, 200])
def test_lines_that_are_nearly_of_a_layout(monkeypatch, spoilt, every):
    lines = [line(n).encode() for n in range(600)]
    for n in range(0, 600, every):
        lines[n] = re.sub(rb'"id":"o\d+"', lambda _: spoilt, lines[n])
    same(b"\n".join(lines), monkeypatch)


@pytest.mark.parametrize(
    ("name", "usual", "other"),
    [
        ("effectiveInstant", '""', '"2024-03-02T00:00:00Z"'),
        (
            "effectivePeriod",
            '{"start":"2024-03-01T00:00:00Z","end":""}',
            '{"start":"","end":"2025"}',
        ),
        ("effectivePeriod", '{"start":"2024-03-01T00:00:00Z"}', '{"start":"2025"}'),
        ("effectivePeriod", '{"end":"2024-03-01T00:00:00Z"}', '{"end":""}'),
        ("meta", '{"lastUpdated":"","versionId":"1"}', '{"lastUpdated":"2025","versionId":"1"}'),
        ("meta", '{"lastUpdated":"2025","versionId":"1"}', '{"lastUpdated":"","versionId":"1"}'),
        ("valueQuantity", '{"value":1,"comparator":""}', '{"value":1,"comparator":"<"}'),
        ("valueQuantity", '{"value":1,"code":"","unit":"a"}', '{"value":1,"code":"b","unit":"a"}'),
        ("subject", '{"reference":"Patient/1","identifier":{"value":"9"}}', '{"reference":""}'),
        ("status", '"final"', '"amended"'),
        ("resourceType", '"Observation"', '"Procedure"'),
    ],
)
@pytest.mark.parametrize("issued", ["", '"2024-03-03T00:00:00Z"'])
def test_what_is_empty_in_one_line_and_told_in_another(monkeypatch, name, usual, other, issued):
    lines = [
        line(n, effectiveDateTime="", issued=issued, **{name: other if n % 9 == 4 else usual})
        for n in range(300)
    ]
    same("\n".join(lines).encode(), monkeypatch)


def test_a_code_that_holds_more_than_itself_is_none(monkeypatch):
    """As many quotes as the others have, but a value ends where it should not."""
    code = '{"coding":[{"system":"http://loinc.org","code":"1-0"}]}'
    for wrong in (
        '{"coding":[]},"issued":{"code":"1-0","x":{}}',
        '{"coding":[{"system":"http://loinc.org","code":"1-0"}}]',
        '{"coding":[{"system":"http://loinc.org","code":"1-0"}]',
        '{"coding":[{"system":"http://loinc.org","code":"1-0"},]}',
        code.replace(":[", ":{"),
    ):
        lines = [line(n, code=wrong if n % 50 == 3 else code) for n in range(400)]
        _, quick = same("\n".join(lines).encode(), monkeypatch)
        assert quick == 392


def test_an_answer_that_holds_more_than_itself_is_none(monkeypatch):
    good = '{"coding":[{"code":"yes"}]}'
    for wrong in ('{"text":"no"},"component":["coding"]', '{"coding":[{"code":"yes"}]', "[]", "7"):
        lines = [
            line(n, valueQuantity="", valueCodeableConcept=wrong if n % 50 == 3 else good)
            for n in range(400)
        ]
        _, quick = same("\n".join(lines).encode(), monkeypatch)
        assert quick == 392


def test_of_two_faults_of_a_line_the_same_is_told(monkeypatch):
    text = "\n".join(line(n, value="1e400" if n % 9 else "2") for n in range(400))
    found, _ = same(text.encode().replace(b"loinc", b"\xffoinc", 40), monkeypatch)
    reasons = [row["reason"] for row in found["rejected"]]
    assert set(reasons) == {"malformed_json", "malformed_resource"}


def test_what_stands_before_its_like_is_read_too(monkeypatch):
    twice = line(1).replace('"code":', '"code":{"coding":[{"code":"a"}]},"code":', 1)
    other = line(2, extra='"\u00ff"')
    text = f"{twice}\n{other}\n{line(3)}".encode()
    for spoilt_ in (
        text,
        text.replace(b'"a"', b'"\xff"'),
        text.replace("\u00ff".encode(), b"\xff"),
    ):
        lines, _ = same(spoilt_, monkeypatch)
        entries = b",".join(b'{"resource":' + one + b"}" for one in spoilt_.split(b"\n"))
        bundle = b'{"resourceType":"Bundle","entry":[' + entries + b"]}"
        inside = read(bundle)
        assert len(inside["events"]) == len(lines["events"]) >= 2


OBJECTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | JSON_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JSON_TEXTS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def exports(draw) -> bytes:
    """Lines of a few layouts, their fields' order and contents drawn, some spoilt."""
    chance = draw(st.randoms(use_true_random=False))
    layouts = []
    for _ in range(draw(st.integers(1, 3))):
        fields = list(json.loads(line(1)))
        fields += ["extra", "meta", "category", "interpretation"]
        fields += draw(st.lists(st.sampled_from(fields), max_size=1))  # a key twice
        chance.shuffle(fields)
        extra = json.dumps(draw(OBJECTS), ensure_ascii=draw(st.booleans()))
        gap = draw(st.sampled_from(["", " ", "\t"]))
        dropped = draw(st.lists(st.sampled_from(fields), max_size=2))
        layouts.append(([f for f in fields if f not in dropped], extra, gap))
    some = draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=4))
    texts = draw(st.lists(st.sampled_from(TEXTS) | JSON_TEXTS.map(escaped), min_size=1, max_size=4))
    dirt = draw(st.sampled_from([0, 0.02, 0.2]))
    lines = []
    for number in range(260):
        fields, extra, gap = chance.choice(layouts)
        odd = chance.random() < dirt
        value = chance.choice(some) if odd else f"{chance.uniform(-5, 500):.3g}"
        text = chance.choice(texts) if odd or dirt == 0 else "mg"
        time = chance.choice(ODD_TIMES if odd else TIMES)
        parts = json.loads(line(number))
        written = {name: json.dumps(part) for name, part in parts.items()}
        written["valueQuantity"] = f'{{"value":{value},"unit":"{text}"}}'
        written["issued"] = f'"{time}"'
        written["extra"] = extra
        written["meta"] = f'{{"lastUpdated":"2024-03-0{number % 9 + 1}"}}'
        written["category"] = f'[{{"text":"{text}"}},{{"n":{value}}}]'
        sign = chance.choice("HLN")
        written["interpretation"] = f'[{{"coding":[{{"code":"{sign}"}}]}}]'
        whole = f",{gap}".join(f'"{name}":{gap}{written[name]}' for name in fields)
        lines.append(("{" + whole + "}").encode(errors="surrogatepass"))
        if odd:
            lines.append(spoilt(lines[-1], chance))
    return b"\n".join(lines)


def escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def spoilt(written: bytes, chance: random.Random) -> bytes:
    """The same with a byte lost, doubled or changed."""
    at = chance.randrange(len(written))
    other = chance.choice([b"", written[at : at + 1] * 2, b'"', b"\\", b"}", b",", b"\xff", b"0"])
    return written[:at] + other + written[at + 1 :]


@FAST
@given(exports())
def test_any_export_gives_what_its_lines_give(monkeypatch, data):
    same(data, monkeypatch)


@FAST
@given(st.dictionaries(JSON_TEXTS, OBJECTS, max_size=4), st.booleans())
def test_values_stand_where_json_says(content, ascii_alone):
    written = json.dumps(content, ensure_ascii=ascii_alone)
    found = values(written.encode(errors="replace"))
    if "\\" in written:
        assert not found
        return
    for path, (begin, end, _) in found.items():
        part = content
        for step in path:
            part = part[step]
        assert json.loads(written.encode()[begin:end]) == part
    assert () in found


def test_a_layout_refuses_what_quotes_do_not_tell():
    written = b'{"a":[1,2]}'
    with pytest.raises(ValueError, match="between the same quotes"):
        Layout(written, [Part(6, 7, "", number=True), Part(8, 9, "", number=True)])


def test_lessons_end_where_they_are_in_vain(monkeypatch):
    asked = []
    learned = Usual._learned
    monkeypatch.setattr(Usual, "_learned", lambda *a: asked.append(a) or learned(*a))
    text = "\n".join(line(n, component="[]") for n in range(LEAST)).encode()
    reader = fhir._Reader(fhir.Options(path="/records"), "ehr")
    for block in range(3 * LESSONS):
        reader.lines(text, block * len(text), "records.ndjson")
    assert len(asked) == LESSONS


def test_few_lines_are_no_block():
    lines = Lines("\n".join(line(n) for n in range(LEAST - 1)).encode())
    reader = fhir._Reader(fhir.Options(path="/records"), "ehr")
    assert reader.plain._usual.read(lines) is None
    assert np.array_equal(lines.left, np.arange(LEAST - 1))
