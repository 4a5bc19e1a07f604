"""This Python environment and the tree under test as archives that a cluster can unpack.

What Clinloom's jobs need, not the tests' tools and not pyspark, which a cluster has, is laid out as
an environment of its own and packed by venv-pack once for each set of versions. The tree changes
with every edit and is a small archive beside it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from tests.clusters.daemons import ROOT
from tests.clusters.parts import Missing, kept

EXTRAS = ("images", "dicom", "s3", "azure", "hdfs")  # what a job on these clusters reads
OF_THE_CLUSTER = ("clinloom", "pyspark", "py4j", "venv-pack")
PYTHON = "./environment/bin/python"  # in a container, where the archive is #environment
SOURCE = "./source"


def packed() -> Path:
    """The environment as ``environment.tar.gz``, made once and kept. Raises Missing."""
    carried = carried_distributions()
    versions = sorted(f"{each.metadata['Name']}=={each.version}" for each in carried)
    told = hashlib.sha256("\n".join([sys.version, sys.prefix, *versions]).encode()).hexdigest()

    def make(at: Path) -> None:
        laid_out = at / "environment"
        base = [sys.executable, "-m", "venv", "--without-pip", "--symlinks", laid_out]
        subprocess.run(base, check=True)
        site = next(laid_out.glob("lib/python*/site-packages"))
        for each in carried:
            _lay_out(each, site)
        packing = [sys.executable, "-m", "venv_pack", "--quiet", "--compress-level", "1"]
        packing += ["--prefix", str(laid_out), "--output", str(at / "environment.tar.gz")]
        done = subprocess.run(packing, capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"venv-pack could not pack this environment: {done.stderr[-300:]}")
        shutil.rmtree(laid_out)

    return kept(f"environment-{told[:10]}", make) / "environment.tar.gz"


def source(folder: Path) -> Path:
    """The package of the tree under test as ``source.tar.gz`` in ``folder``."""
    made = folder / "source.tar.gz"
    with tarfile.open(made, "w:gz", compresslevel=1) as archive:
        archive.add(ROOT / "src" / "clinloom", "clinloom", filter=_without_caches)
    return made


def carried_distributions() -> list[Distribution]:
    """What ``clinloom`` with its extras asks for and this environment has, transitively."""
    found: dict[str, Distribution] = {}
    asked = [("clinloom", frozenset(EXTRAS))]
    seen = set(asked)
    for name, extras in asked:  # grows while it is walked
        try:
            each = distribution(name)
        except PackageNotFoundError:  # another system's
            continue
        found[name] = each
        for line in each.requires or []:
            wanted = Requirement(line)
            contexts = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if wanted.marker and not any(map(wanted.marker.evaluate, contexts)):
                continue
            more = (wanted.name.lower().replace("_", "-"), frozenset(wanted.extras))
            if more not in seen:
                seen.add(more)
                asked.append(more)
    return [each for name, each in sorted(found.items()) if name not in OF_THE_CLUSTER]


def _lay_out(each: Distribution, site: Path) -> None:
    """Link a distribution's files into another environment; its own tests stay behind."""
    for file in each.files or []:
        if ".." in file.parts or "__pycache__" in file.parts or "tests" in file.parts:
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        origin = each.locate_file(file)
        try:
            os.link(os.fspath(origin), target)
        except FileExistsError:
            continue
        except OSError:  # the cache is on another file system
            shutil.copy2(os.fspath(origin), target)


def _without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry
