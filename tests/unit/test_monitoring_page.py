"""What docs/monitoring.md shows can be typed, and says what the program does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from clinloom import cli
from clinloom.evaluate import asked

PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line: str):
    program, *words = shlex.split(line, comments=True)
    args = cli.parser().parse_args(words)
    assert program == "clinloom" and callable(args.function)


def test_every_kind_of_alarm_is_told_and_what_it_is_large_enough_for():
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", PAGE, re.MULTILINE))
    assert set(rows) == set(asked.KINDS)
    assert f"{asked.SHIFTED}" in rows["inputs"] and f"{asked.SHIFTED}" in rows["predictions"]
    assert rows["missing"] == f"{100 * asked.LACKING:.0f} points"
    assert rows["flagged"] == f"{100 * asked.OFTEN:.0f} points"
    assert rows["calibration"] == f"{asked.LOGITS}" and rows["discrimination"] == f"{asked.AREA}"


def test_every_argument_of_the_command_is_told():
    command = cli.parser()._subparsers._group_actions[0].choices["monitor"]
    options = {o for a in command._actions for o in a.option_strings if o.startswith("--")}
    assert {o for o in options if o in PAGE} >= options - {"--help", "--quiet", "--platform"}
