"""The lock's entries for an image, each with its hashes: python locked.py LOCK PACKAGES KIND...

PACKAGES: a package a line, followed by the kinds of image that need it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def locked(lock: str, packages: str, kinds: set[str]) -> str:
    """The entries of what the kinds need. Raises SystemExit for a kind or package not there."""
    needs = [line.split() for line in packages.splitlines() if line and line[0] != "#"]
    known = {kind for _, *told in needs for kind in told}
    wanted = {name for name, *told in needs if kinds & {*told}}
    entries = [(entry.split("==")[0], entry) for entry in re.split(r"\n(?=[a-z])", lock.strip())]
    if missing := (kinds - known) | (wanted - {name for name, _ in entries}):
        raise SystemExit(f"not there: {' '.join(sorted(missing))}; kinds are {sorted(known)}")
    return "\n".join(entry for name, entry in entries if name in wanted)


if __name__ == "__main__":
    print(locked(*(Path(name).read_text() for name in sys.argv[1:3]), {*sys.argv[3:]}))
