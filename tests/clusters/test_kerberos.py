"""HDFS under Kerberos answers a keytab's owner, denies a stranger and refuses who has no ticket."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests import classes
from tests.clusters.kerberos import OWNER, STRANGER, Kerberos
from tests.hospital import STUDY, sets, small

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# In a process of its own: Kerberos's library reads the environment that a process began with.
READ_AND_WRITE = """
import sys
import hdfs_native
from clinloom import files

place = files.address(sys.argv[1] + "/patients/file")
files.write(place, b"0123456789" * 100_000)
assert files.read(place) == b"0123456789" * 100_000
with files.random(place) as file:
    assert file.read() == b"0123456789" * 100_000
told = hdfs_native.Client(sys.argv[1]).get_file_info("/patients/file")
print(told.owner, told.length)
"""


def client(kerberos: Kerberos, user: str | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", READ_AND_WRITE, kerberos.address],
        env=kerberos.client(user),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_keytab_opens_hdfs_without_kinit(kerberos: Kerberos):
    """And what was just written is read whole, though its last block is reported late."""
    done = client(kerberos, OWNER)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [OWNER, "1000000"]


def test_the_ticket_that_it_left_in_the_cache_is_enough(kerberos: Kerberos):
    assert client(kerberos, OWNER).returncode == 0
    env = kerberos.client(OWNER)
    del env["KRB5_CLIENT_KTNAME"]
    command = [sys.executable, "-c", READ_AND_WRITE, kerberos.address]
    assert subprocess.run(command, env=env, capture_output=True, timeout=60).returncode == 0


def test_a_stranger_with_a_ticket_is_denied(kerberos: Kerberos):
    assert client(kerberos, OWNER).returncode == 0
    done = client(kerberos, STRANGER)
    assert done.returncode and "Permission denied" in done.stderr


def test_nobody_comes_in_without_a_ticket(kerberos: Kerberos):
    done = client(kerberos, None)
    assert done.returncode and "asks for a Kerberos ticket" in done.stderr


PUT = """
import sys
from pathlib import Path
from clinloom import files

folder, there = Path(sys.argv[1]), files.address(sys.argv[2])
for file in folder.rglob("*"):
    if file.is_file():
        files.write(there / file.relative_to(folder).as_posix(), file.read_bytes())
"""
SHOW = """
import sys
from clinloom import files

sys.stdout.buffer.write(files.read(files.address(sys.argv[1])))
"""


def test_a_study_there_is_the_one_on_this_machine(kerberos: Kerberos, hospital: Path, local: Path):
    """Sources, tables, the saved model and the bundle: Python's and Java's ways with a ticket."""
    data, out = f"{kerberos.address}/hospital", f"{kerberos.address}/out"
    env = kerberos.client(OWNER) | {
        "CLINLOOM_SPARK_MASTER": "local[2]",
        "SPARK_SUBMIT_OPTS": f"{classes.options()} -Djava.security.krb5.conf={kerberos.krb5}",
    }

    def ran(*command: object) -> bytes:
        done = subprocess.run([sys.executable, *map(str, command)], env=env, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        return done.stdout

    ran("-c", PUT, hospital, data)
    ran("-m", "clinloom", "run", STUDY, "--out", out, *sets(small(data)))
    metrics = ran("-c", SHOW, f"{out}/metrics.json")
    assert json.loads(metrics) == json.loads((local / "metrics.json").read_bytes())
    assert ran("-c", SHOW, f"{out}/bundle/bundle.json")
