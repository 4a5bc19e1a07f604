"""The commands that docs/cluster.md shows, typed as a reader would, with the tests' own names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.clusters.daemons import ROOT
from tests.clusters.sparks import HOME

PAGE = ROOT / "docs" / "cluster.md"


def shown(section: str, begins: str) -> str:
    """The command of a section that begins so, its continued lines joined."""
    (text,) = re.findall(rf"^## {re.escape(section)}.*?(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    blocks = "".join(re.findall(r"```bash\n(.*?)```", text, re.S)).replace("\\\n", " ")
    (line,) = [line for line in blocks.splitlines() if line.startswith(begins)]
    return line.partition(" #")[0].strip()


def typed(
    command: str, named: Mapping[str, str], more: Sequence[str], env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command of the page in a shell, ``named`` in place of the page's own names."""
    for its, ours in named.items():
        assert its in command, f"{its} is not in: {command}"
        command = command.replace(its, ours)
    path = [str(Path(sys.executable).parent), str(HOME / "bin"), env.get("PATH", os.defpath)]
    return subprocess.run(
        ["bash", "-c", f'{command} "$@"', "bash", *more],
        env={**env, "PATH": os.pathsep.join(path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
