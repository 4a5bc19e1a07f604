"""What a plug-in's results depend on: another version of what it needs is another stage."""

from __future__ import annotations

from importlib import metadata

import pytest

from clinloom import plugins

DECODERS = {"pydicom", "imagecodecs", "python-gdcm", "pylibjpeg"}


@pytest.mark.parametrize("changed", sorted(DECODERS))
def test_another_version_of_a_decoder_is_another_stage(monkeypatch, changed: str):
    stamp, version = plugins.stamp.__wrapped__, metadata.version
    assert set(plugins.needed("sources", "dicom")) >= DECODERS
    before = stamp("sources", "dicom")
    assert stamp("sources", "dicom") == before
    monkeypatch.setattr(metadata, "version", lambda name: "0" if name == changed else version(name))
    assert stamp("sources", "dicom") != before
