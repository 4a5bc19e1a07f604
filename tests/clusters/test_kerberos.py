"""HDFS and YARN under Kerberos, with encryption zones, answer a keytab's owner and nobody else."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests import classes
from tests.clusters.hadoop import HERE, options
from tests.clusters.kerberos import OWNER, STRANGER, Kerberos
from tests.hospital import STUDY, places, sets, small

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


def test_what_lies_in_an_encryption_zone_is_no_text_on_a_disk(kerberos: Kerberos):
    assert client(kerberos, OWNER).returncode == 0
    blocks = [
        file.read_bytes() for file in kerberos.daemons.folder.glob("data-*/current/*/*/**/blk_*")
    ]
    assert max(map(len, blocks)) >= 1_000_000
    assert not any(b"01234567890123456789" in block for block in blocks)


PUT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from clinloom import files

folder, there = Path(sys.argv[1]), files.address(sys.argv[2])

def put(file):
    files.write(there / file.relative_to(folder).as_posix(), file.read_bytes())

with ThreadPoolExecutor(8) as threads:
    list(threads.map(put, filter(Path.is_file, folder.rglob("*"))))
files.write(there / "study.yaml", Path(sys.argv[3]).read_bytes())
"""
SHOW = """
import sys
from clinloom import files

sys.stdout.buffer.write(files.read(files.address(sys.argv[1])))
"""


Ran = subprocess.CompletedProcess[bytes]


def ran(*command: object, env: Mapping[str, str]) -> Ran:
    return subprocess.run([sys.executable, *map(str, command)], env=env, capture_output=True)


def show(address: str, env: Mapping[str, str]) -> bytes:
    return ran("-c", SHOW, address, env=env).stdout


@pytest.fixture(scope="module")
def ticket(kerberos: Kerberos, hospital: Path, finished: Path) -> dict[str, str]:
    """The environment of who has a ticket, no keytab; the hospital and a bundle lie in HDFS."""
    env = kerberos.client(OWNER)
    for folder, there in ((hospital, "hospital"), (finished / "bundle", "encrypted/bundle")):
        put = ran("-c", PUT, folder, f"{kerberos.address}/{there}", STUDY, env=env)
        assert put.returncode == 0, put.stderr[-2000:]
    del env["KRB5_CLIENT_KTNAME"]  # the ticket stays, as after kinit
    java = f"{classes.options()} -Djava.security.krb5.conf={kerberos.krb5}"
    return env | {"SPARK_SUBMIT_OPTS": java, "CLINLOOM_SPARK_MASTER": ""}


def site(kerberos: Kerberos, folder: Path, **more: object) -> Path:
    java = f"-Djava.security.krb5.conf={kerberos.krb5}"
    env = {"KRB5_CONFIG": str(kerberos.krb5)}
    return options(folder, "cluster", java_options=java, env=env, **HERE, **more)


def said(kerberos: Kerberos, done: Ran) -> str:
    """The last words of a command, and of the containers of its application."""
    logs = sorted((kerberos.daemons.folder / "yarn-logs").rglob("stdout"))
    return "\n".join(
        [done.stderr.decode()[-3000:], *(log.read_text()[-1500:] for log in logs[-3:])]
    )


def test_a_study_on_yarn_with_a_ticket_is_the_one_on_this_machine(
    kerberos: Kerberos, ticket: dict[str, str], local: Path, tmp_path: Path
):
    """A ticket here is enough: on the cluster, driver and workers open HDFS by YARN's token, as
    Java does, which saves and loads a model. The study file lies there, too. Who has no ticket is
    told so before anything is submitted."""
    platform = site(kerberos, tmp_path)

    def run(study: object, env: Mapping[str, str]) -> Ran:
        command = ["-m", "clinloom", "run", study, "--on", "yarn", "--platform", platform]
        command += ["--out", "hdfs:///studies/readmission", *sets(small("hdfs:///hospital"))]
        return ran(*command, env=env)

    done = run("hdfs:///hospital/study.yaml", ticket)
    assert done.returncode == 0, said(kerberos, done)
    metrics = show("hdfs:///studies/readmission/metrics.json", ticket)
    assert json.loads(metrics) == json.loads((local / "metrics.json").read_bytes())
    assert show("hdfs:///studies/readmission/bundle/bundle.json", ticket)
    if shutil.which("klist"):
        nobody = run(STUDY, {**ticket, "KRB5CCNAME": f"FILE:{tmp_path / 'none'}"})
        assert nobody.returncode == 2 and b"no valid ticket" in nobody.stderr


def test_a_keytab_opens_an_encryption_zone_on_yarn(
    kerberos: Kerberos, ticket: dict[str, str], scored: Path, tmp_path: Path
):
    """Driver and workers ask the server of keys, to which YARN's token is nothing."""
    keytab = kerberos.daemons.folder / f"{OWNER}.keytab"
    platform = site(kerberos, tmp_path, principal=OWNER, keytab=str(keytab))
    command = ["-m", "clinloom", "score", "hdfs:///encrypted/bundle", "--on", "yarn"]
    command += ["--out", "hdfs:///encrypted/risk.parquet", "--platform", platform]
    done = ran(*command, *sets(places("hdfs:///hospital")), env=ticket)
    assert done.returncode == 0, said(kerberos, done)
    found = pq.read_table(io.BytesIO(show("hdfs:///encrypted/risk.parquet", ticket)))
    assert found.num_rows == pq.read_metadata(scored).num_rows
