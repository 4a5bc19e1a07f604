"""HDFS under Kerberos answers a keytab's owner, denies a stranger and refuses who has no ticket."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.clusters.kerberos import OWNER, STRANGER, Kerberos

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
