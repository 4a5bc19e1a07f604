"""Where a recalibrated bundle may be written: what else is there is not taken away."""

from __future__ import annotations

import pytest
from tests.service import made

from clinloom.errors import UsageError
from clinloom.run.recalibrate import recalibrate


def test_a_folder_of_other_files_is_no_place_for_a_bundle(tmp_path):
    bundle = made.publish(tmp_path / "out" / "bundle", count=2)
    (tmp_path / "out" / "manifest.json").write_text("{}")
    for place, told in (("out", "holds other files"), ("out/bundle", "the bundle itself")):
        with pytest.raises(UsageError, match=told):
            recalibrate(str(bundle), predictions="none", out=str(tmp_path / place))
    assert (tmp_path / "out" / "manifest.json").exists()
