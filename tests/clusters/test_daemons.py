"""What a test starts ends with it, however the test ends; what is missing is said in one line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.clusters import keeper, parts
from tests.clusters.daemons import Daemons, NotReady, own_environment, started
from tests.clusters.sparks import TREE

pytestmark = pytest.mark.cluster

# A server that ignores TERM and leaves an orphan behind: both must go. The shell between them has
# ended when the file is there: only then are its processes those that stay.
STUBBORN = ["sh", "-c", "trap '' TERM; (setsid sleep 600 &); : >settled; sleep 600"]
OWNER = f"""
import sys
from tests.clusters.daemons import Daemons
daemons = Daemons("orphan")
daemons.start("stubborn", {STUBBORN!r})
while not (daemons.folder / "settled").exists() or len(below := daemons.below("stubborn")) < 3:
    pass
print(daemons.folder, *below, flush=True)
sys.stdin.read()
"""


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_all_that_a_server_started_ends_with_it():
    with Daemons("stubborn") as daemons:
        daemons.start("stubborn", STUBBORN)
        daemons.await_ready((daemons.folder / "settled").exists, what="the orphan")
        daemons.await_ready(lambda: len(daemons.below("stubborn")) >= 3, what="the server's sleep")
        below = daemons.below("stubborn")
    assert not any(map(alive, below)) and not daemons.folder.exists()


def test_killed_tests_leave_no_server_and_no_folder():
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        env=own_environment(PYTHONPATH=TREE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    folder, *below = owner.stdout.readline().split()
    assert all(alive(int(pid)) for pid in below)
    owner.kill()
    owner.wait()
    limit = time.monotonic() + keeper.GRACE + 10
    while time.monotonic() < limit and (Path(folder).exists() or any(alive(int(p)) for p in below)):
        time.sleep(0.1)
    assert not Path(folder).exists() and not any(alive(int(pid)) for pid in below)


def test_a_start_that_loses_its_port_is_tried_again():
    folders: list[Path] = []

    def start(daemons: Daemons) -> int:
        folders.append(daemons.folder)
        if len(folders) < 3:
            daemons.start("loser", ["sh", "-c", "echo Address already in use; exit 1"])
            daemons.await_ready(lambda: False, what="the loser")
        return len(folders)

    with started("race", start) as tries:
        assert tries == 3
    assert not any(folder.exists() for folder in folders)


def test_a_server_that_ends_is_named_with_its_last_words():
    def start(daemons: Daemons) -> None:
        daemons.start("loser", ["sh", "-c", "echo no such setting; exit 1"])
        daemons.await_ready(lambda: False, what="the loser")

    with pytest.raises(NotReady, match="loser ended at its start: no such setting"):
        with started("race", start, tries=1):
            pass


def test_a_missing_program_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CLINLOOM_TEST_CACHE", str(tmp_path / "cache"))
    with pytest.raises(parts.Missing, match=r"^mvn is not installed \(apt-get install maven\)$"):
        parts.S3A.folder()
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_cache_keeps_a_folder_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("CLINLOOM_TEST_CACHE", str(tmp_path))

    def half(at: Path) -> None:
        (at / "half").touch()
        raise OSError("the connection broke")

    with pytest.raises(OSError, match="broke"):
        parts.kept("jars", half)
    assert list(tmp_path.iterdir()) == []
    kept = parts.kept("jars", lambda at: (at / "whole").touch())
    assert [file.name for file in kept.iterdir()] == ["whole"]
    assert parts.kept("jars", half) == kept
