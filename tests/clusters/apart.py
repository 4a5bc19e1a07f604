"""A process that sees this machine as another machine would: its own /tmp, no test's files.

``unshare --mount`` gives it a view of its own of the file system. In it the temporary folder, where
tests write, is a folder of that process's own; the checkout, the environment and the cache of
packages stay where they are, as installed software. Needs root or user namespaces.
"""

from __future__ import annotations

import functools
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

TMP = Path(tempfile.gettempdir()).resolve()


@functools.cache
def way() -> tuple[str, ...]:
    """The command that gives a process mounts of its own here; empty where none may."""
    for command in (("unshare", "--mount"), ("unshare", "--mount", "--map-root-user")):
        tried = [*command, "mount", "--bind", str(TMP), str(TMP)]
        try:
            if subprocess.run(tried, capture_output=True).returncode == 0:
                return command
        except FileNotFoundError:
            break
    return ()


def apart(tmp: Path, *, seen: Sequence[Path] = ()) -> list[str]:
    """The prefix of a command that shall have ``tmp`` as its temporary folder.

    ``seen`` are folders that stay where they are although they lie in the real one. The prefix is
    empty where the machine does not allow it.
    """
    if not way():
        return []
    lines = ["set -e"]
    for folder in (*seen, Path(sys.prefix), Path(sys.base_prefix)):
        real = folder.resolve()
        if real.is_relative_to(TMP):
            inside = shlex.quote(str(tmp / real.relative_to(TMP)))
            lines += [f"mkdir -p {inside}", f"mount --bind {shlex.quote(str(real))} {inside}"]
    lines += [f"mount --rbind {shlex.quote(str(tmp))} {shlex.quote(str(TMP))}"]
    return [*way(), "sh", "-c", "\n".join([*lines, 'exec "$@"']), "sh"]
