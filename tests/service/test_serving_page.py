"""The commands of docs/serving.md do what the page says, typed as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.service import made

from clinloom import cli
from clinloom.deploy._problems import BROKEN, TITLES
from clinloom.deploy.door import REASONS

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
ASKED = [block for block in BLOCKS if block.startswith("curl")]
STARTED = [line for block in BLOCKS for line in block.splitlines() if "clinloom serve" in line]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("block", ASKED, ids=range(len(ASKED)))
def test_what_is_asked_is_answered(service, tmp_path, block):
    (tmp_path / "patient.json").write_bytes(made.body(1))
    typed = block.replace("localhost:8000", f"127.0.0.1:{service.port}")
    done = subprocess.run(["sh", "-ec", typed], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "predict?at" in block:
        [prediction] = json.loads(done.stdout)["predictions"]
        assert prediction["prediction_time"] == "2025-01-01T00:00:00Z"
    elif "predict" in block:
        assert '"RiskAssessment"' in done.stdout and '"contributions"' in done.stdout


@pytest.mark.parametrize("line", STARTED)
def test_what_starts_it_is_understood(line):
    words = shlex.split(line)
    asked = cli.parser().parse_args(words[words.index("clinloom") + 1 :])
    assert asked.bundle == "out/bundle" and asked.max_body == 10 << 20


def test_every_reason_is_told():
    told = set(re.findall(r"`([a-z_]+)`", PAGE))
    ours = {*REASONS, *TITLES} - {"bad_request", "not_found", "method_not_allowed", "unexpected"}
    lacking = {reason for reason in ours - told if reason in REASONS or reason in BROKEN}
    assert not lacking
