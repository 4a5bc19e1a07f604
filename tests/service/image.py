"""The image without a container engine: what its Dockerfile says, and its packages in a folder."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deployment"
PREFIX = "/opt/clinloom"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, in order."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    found = (line.split(maxsplit=1) for line in lines if line.strip())
    return [(name, rest) for name, rest in found]


def last(name: str) -> str:
    """The arguments of the last instruction of that name."""
    return [rest for found, rest in instructions() if found == name][-1]


def words(text: str) -> list[str]:
    """A command that no shell reads: a JSON list."""
    found: list[str] = json.loads(text)
    return found


def needed(*kinds: str) -> set[str]:
    """The packages of images of these kinds."""
    lines = (FOLDER / "packages.txt").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {name for name, *told in rows if {*kinds} & {*told}}


def install(prefix: Path) -> None:
    """An environment of those packages and this one and no other, by links to what is here."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = prefix / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (prefix / "bin").mkdir()
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    (prefix / "bin" / "python").symlink_to(base)
    (prefix / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    (packages / "clinloom").symlink_to(ROOT / "src" / "clinloom")
    for name in needed("serve"):
        distribution = importlib.metadata.distribution(name)
        folder = Path(str(distribution.locate_file("")))
        for head in {file.parts[:2] for file in distribution.files or () if file.parts[0] != ".."}:
            whole = len(head) == 1 or (folder / head[0] / "__init__.py").exists()
            part = Path(*head[: 1 if whole else 2])  # of a folder that several share
            if not (packages / part).exists():
                (packages / part).parent.mkdir(exist_ok=True)
                (packages / part).symlink_to(folder / part)


def environment() -> dict[str, str]:
    """The variables that the image sets; of a person's home there is none."""
    told = (pair.partition("=") for pair in last("ENV").split())
    return {"PATH": os.defpath, **{name: value for name, _, value in told}}
