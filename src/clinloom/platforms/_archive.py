"""This Python environment as archives that a cluster's nodes unpack: what is installed, and ours.

What Clinloom needs of this environment (not pyspark, which spark-submit brings) is laid out anew
and packed by venv-pack, once for each set of versions; the package itself is a small archive beside
it. A packed environment holds no interpreter: each node has this Python at this place.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import clinloom
from clinloom.errors import ClinloomError, MissingDependency

OF_THE_CLUSTER = {"clinloom", "pyspark", "py4j"}
OF_DEVELOPMENT = {"test", "judges", "browser", "docs", "bench", "build", "all"}  # extras
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def cache() -> Path:
    """Where archives are kept: CLINLOOM_CACHE, else the user's cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CLINLOOM_CACHE") or home / "clinloom")


def environment(note: Callable[[str], None]) -> Path:
    """The environment's archive, packed where it is not kept yet.

    Raises MissingDependency without venv-pack, ClinloomError where it cannot pack.
    """
    carried = sorted(distributions(), key=lambda each: each.metadata["Name"].lower())
    told = [sys.version, sys.base_prefix, *(f"{d.metadata['Name']}=={d.version}" for d in carried)]
    key = hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
    made = cache() / f"environment-{key}.tar.gz"
    if made.is_file():
        return made
    try:
        import venv_pack
    except ImportError:
        raise MissingDependency(
            "packing this environment needs venv-pack", mend="pip install 'clinloom[yarn]'"
        ) from None
    note("packing this environment for the cluster; it is kept for the next time")
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=made.parent) as folder:
        prefix, packed = Path(folder) / "environment", Path(folder) / "environment.tar.gz"
        base = [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(prefix)]
        subprocess.run(base, check=True)  # noqa: S603 - this Python
        for each in carried:
            _lay_out(each, next(prefix.glob("lib/python*/site-packages")))
        try:
            venv_pack.pack(prefix=str(prefix), output=str(packed), compress_level=1)
        except venv_pack.VenvPackException as error:
            raise ClinloomError(
                "this environment cannot be packed",
                where=str(error).splitlines()[0],
                mend="pack it yourself (conda-pack, venv-pack) and give platform.yarn.archive",
            ) from None
        packed.replace(made)
    return made


def source(folder: Path) -> Path:
    """The package itself as ``clinloom.tar.gz`` in ``folder``."""
    made = folder / "clinloom.tar.gz"
    with tarfile.open(made, "w:gz", compresslevel=1) as archive:
        archive.add(Path(clinloom.__file__).parent, "clinloom", filter=_code)
    return made


def distributions() -> Iterator[Distribution]:
    """What clinloom and its extras ask for, and this environment has: all the way down.

    What only other systems or extras that are not installed want is not here, so it is left out.
    """
    waiting, seen = ["clinloom"], set(OF_THE_CLUSTER)
    for name in waiting:  # grows while it is walked
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        own = name == "clinloom"
        if not own:
            yield found
        for line in found.requires or []:
            wanted, _, marker = line.partition(";")
            extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", marker)
            if extra and (not own or extra[1] in OF_DEVELOPMENT):
                continue
            match = NAME.match(wanted)
            key = re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""
            if key and key not in seen:
                seen.add(key)
                waiting.append(key)


def _lay_out(each: Distribution, site: Path) -> None:
    """Link a distribution's files into another environment; its own tests stay behind."""
    for file in each.files or []:
        if ".." in file.parts or "__pycache__" in file.parts or "tests" in file.parts:
            continue
        origin, target = Path(str(each.locate_file(file))), site / file
        if not origin.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(origin, target)
        except FileExistsError:
            continue
        except OSError:  # the cache is on another file system
            shutil.copy2(origin, target)


def _code(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry
