"""What docs/streaming.md shows can be typed, and says what the program does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from clinloom import cli
from clinloom.tables import PREDICTIONS, STREAMED

PAGE = (Path(__file__).parents[2] / "docs" / "streaming.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("line", [line for block in BLOCKS for line in block.splitlines()])
def test_every_command_is_one(line: str):
    program, *words = shlex.split(line, comments=True)
    args = cli.parser().parse_args(words)
    assert program == "clinloom" and args.out and args.come


def test_every_argument_and_column_is_told():
    command = cli.parser()._subparsers._group_actions[0].choices["stream"]
    options = {o for a in command._actions for o in a.option_strings if o.startswith("--")}
    options -= {"--help", "--json", "--quiet", "--platform"}
    assert {o for o in options if o in PAGE} == options
    more = set(STREAMED.arrow.names) - set(PREDICTIONS.arrow.names)
    assert all(f"`{name}`" in PAGE for name in more)
