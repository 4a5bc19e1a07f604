"""What a damaged file may do to a decoder, it does to a process apart: it costs that file alone."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clinloom.files import Given
from clinloom.sources import dicom, images
from clinloom.sources._images import apart

DECODER = """
import os

def examine(data, told):
    yield {"patient": "P-1", "record": "R-1"}
    if data == b"abort":
        os.abort()
    if data == b"print":
        os.write(1, b"a patient's value"), os.write(2, b"another")
    while data == b"loop":
        pass
    if data == b"bomb":
        bytes(1 << 40)
    if data == b"panic":
        raise type("PanicException", (BaseException,), {})("a patient's value")
    yield {"size": len(data), "told": told, "secret": os.environ.get("CLINLOOM_SPARK_TOKEN")}
"""
SOUND = {"patient": "P-1", "record": "R-1", "told": {"zone": "UTC"}, "secret": None}


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A decoder that does what its file says, and a child that finds it."""
    (tmp_path / "brittle.py").write_text(DECODER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CLINLOOM_SPARK_TOKEN", "canary")
    apart.close()
    yield "brittle"
    apart.close()


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (b"abort", "decoder_crashed"),
        (b"panic", "decoder_crashed"),
        (b"loop", "decoder_hung"),
        (b"bomb", "oversized_image"),
    ],
)
def test_a_file_that_ends_its_decoder_is_refused_and_the_next_one_is_read(
    decoder: str, data: bytes, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "SECONDS", 1.0 if data == b"loop" else 30.0)
    told = {"zone": "UTC"}
    assert apart.examined(decoder, b"sound", told) == {**SOUND, "size": 5}
    known = {"patient": "P-1", "record": "R-1"}  # whose it is was told before
    assert apart.examined(decoder, data, told) == {**known, "refused": refused}
    assert apart.examined(decoder, b"", told) == {**SOUND, "size": 0}


def test_a_child_that_was_killed_while_it_was_idle_is_replaced(decoder: str) -> None:
    apart.examined(decoder, b"sound", {})
    child = apart._held
    assert child is not None
    child.kill()
    child.wait()
    assert apart.examined(decoder, b"sound", {})["size"] == 5


def test_what_a_decoder_prints_is_neither_an_answer_nor_shown(
    decoder: str, capfd: pytest.CaptureFixture
) -> None:
    assert apart.examined(decoder, b"print", {})["size"] == 5
    out = capfd.readouterr()
    assert not out.out and not out.err


def test_a_fork_has_a_child_of_its_own(decoder: str) -> None:
    apart.examined(decoder, b"sound", {})
    mine = apart._held
    assert mine is not None
    fork = os.fork()
    if not fork:
        os._exit(0 if apart._held is None else 1)
    assert os.waitpid(fork, 0)[1] == 0
    assert apart.examined(decoder, b"sound", {})["size"] == 5 and apart._held is mine


@pytest.mark.parametrize("source", [dicom, images])
def test_the_child_loads_what_decodes_and_the_worker_does_not(source: object) -> None:
    """The worker has no use for them: what it does not load pays for the child's start."""
    code = (
        f"import sys, {source.__name__}\n"  # type: ignore[attr-defined]
        "sys.exit(bool({'pydicom', 'gdcm', 'scipy', 'PIL'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def _instance(**tags: object) -> bytes:
    from tests.unit.test_dicom_source import instance, written

    return written(instance(**tags))


def _reasons(files: dict[str, bytes]) -> tuple[list[str], dict[str, str]]:
    units = [Given(name, data) for name, data in files.items()]
    parcels = list(dicom.read(units, dicom.Options(path="."), "scans"))
    kept = [f for p in parcels if "images" in p for f in p["images"].column("file").to_pylist()]
    rows = [row for p in parcels if "rejected" in p for row in p["rejected"].to_pylist()]
    return kept, {row["file"]: row["reason"] for row in rows}


def test_an_instance_that_inflates_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes of a deflated data set that ask for more than a process may have."""
    pytest.importorskip("pydicom", reason="the dicom extra is not installed")
    import pydicom

    monkeypatch.setattr(apart, "MEMORY", 256 << 20)
    made = pydicom.dcmread(io.BytesIO(_instance()))
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    head = out.getvalue()
    plain = zlib.decompress(head[-len(_body(head)) :], -zlib.MAX_WBITS)
    bigger = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = bigger.compress(plain) + bigger.compress(bytes(400 << 20)) + bigger.flush()
    bomb = head[: -len(_body(head))] + body
    assert len(bomb) < 1 << 20
    wide = _instance(Rows=20_000, Columns=20_000)
    kept, refused = _reasons(
        {"a.dcm": _instance(), "bomb.dcm": bomb, "wide.dcm": wide, "b.dcm": _instance()}
    )
    assert kept == ["a.dcm", "b.dcm"]
    assert refused == {"bomb.dcm": "oversized_image", "wide.dcm": "oversized_image"}


def test_a_panic_of_a_real_decoder_leaves_the_file_to_the_next_one() -> None:
    """One byte of run-length code too many: the decoder in Rust raises what is no Exception."""
    pydicom = pytest.importorskip("pydicom", reason="the dicom extra is not installed")
    pytest.importorskip("rle", reason="the dicom extra's decoders are not installed")
    file = Path(pydicom.__file__).parent / "data" / "test_files" / "rtdose_rle.dcm"
    if not file.is_file():
        pytest.skip("this pydicom ships no test files")
    dose, scan = b"1.2.840.10008.5.1.4.1.1.481.2\0", b"1.2.840.10008.5.1.4.1.1.2"
    data = bytearray(file.read_bytes().replace(dose, scan.ljust(len(dose), b"\0")))
    assert data[2014] == 255
    data[2014] = 192
    kept, refused = _reasons({"a.dcm": _instance(), "panic.dcm": bytes(data), "b.dcm": _instance()})
    assert (kept, refused) == (["a.dcm", "panic.dcm", "b.dcm"], {})


def _body(data: bytes) -> bytes:
    """What follows the file meta information, whose length its first element tells."""
    return data[144 + int.from_bytes(data[140:144], "little") :]


def test_a_photograph_that_is_a_bomb_costs_itself(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="the images extra is not installed")
    (tmp_path / "images").mkdir()
    image.new("1", (20_000, 20_000)).save(tmp_path / "images" / "bomb.png")
    image.fromarray(np.eye(20, dtype=np.uint8)).save(tmp_path / "images" / "sound.png")
    (tmp_path / "manifest.csv").write_text("who,image\n1,bomb\n2,sound\n")
    options = images.Options(
        path=str(tmp_path / "images"),
        manifest=str(tmp_path / "manifest.csv"),
        file="{image}.png",
        patient="who",
    )
    units = list(images.plan(options, "sources.photos"))
    (parcel,) = images.read(units, options, "photos")
    assert parcel["images"].column("file").to_pylist() == ["sound.png"]
    (refused,) = parcel["rejected"].to_pylist()
    assert (refused["file"], refused["reason"]) == ("bomb.png", "oversized_image")
