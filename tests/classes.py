"""Java's classes of Spark in one archive: a JVM maps it, in place of reading and checking jars.

The archive is made when a run's JVM ends (``-XX:ArchiveClassesAtExit``), lies in the environment
and fits that environment's jars and that Java alone: its name tells of both. A JVM whose class path
begins otherwise passes over it without a word.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark

# Every driver here is at work for seconds: it ends before Java's second compiler pays, which took
# a third of a small run's processor time.
QUICK = "-XX:TieredStopAtLevel=1"
JARS = Path(pyspark.__file__).parent / "jars"
# As Spark itself begins the class path of its JVMs: the archive fits no other.
PATH = ":".join([*map(str, JARS.glob("slf4j-api-*.jar")), f"{JARS}/*"])


def archive() -> Path:
    """Where the archive lies, or will."""
    home = os.environ.get("JAVA_HOME")
    java = Path(shutil.which(f"{home}/bin/java" if home else "java") or "").resolve()
    files = [java, *sorted(JARS.glob("*.jar"))]
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return Path(sys.prefix) / f"spark-{hashlib.sha256(repr(stats).encode()).hexdigest()[:12]}.jsa"


def options() -> str:
    """The options of a JVM that runs Spark; with the archive, where there is one."""
    place = archive()
    return f"{QUICK} -XX:SharedArchiveFile={place} -Xlog:disable" if place.exists() else QUICK


@contextmanager
def kept() -> Iterator[str]:
    """The options of a JVM that leaves the archive when it ends, where there is none yet."""
    place = archive()
    if place.exists():
        yield options()
        return
    made = place.with_name(f".{os.getpid()}-{place.name}")
    try:
        yield f"{QUICK} -XX:ArchiveClassesAtExit={made} -Xlog:disable"
        for old in place.parent.glob("spark-*.jsa"):  # of jars that are no longer these
            old.unlink()
        if made.exists():  # a Java without archives makes none
            made.rename(place)
    finally:
        made.unlink(missing_ok=True)
