"""A cluster that asks for tickets, without one: whom the doctor asks as, what is read and kept."""

from __future__ import annotations

import shlex
import urllib.error
from email.message import Message
from pathlib import Path

import pytest

from clinloom import platforms
from clinloom.files._drivers import hdfs
from clinloom.platforms import Task, _application, _child, _hadoop, _yarn_checks

KERBEROS = {"hadoop.security.authentication": "kerberos"}


def site(folder: Path, **settings: str) -> None:
    rows = "".join(
        f"<property><name>{k}</name><value>{v}</value></property>" for k, v in settings.items()
    )
    (folder / "core-site.xml").write_text(f"<configuration>{rows}</configuration>")


class Asked(_hadoop.Hadoop):
    """A cluster that notes what its programs were asked, and with which ticket."""

    said: list[tuple[object, ...]] = []

    def program(self, main, *args, env=None):
        self.said.append((self.own.get("KRB5CCNAME"), *args))
        return 0, ""


def test_the_doctor_writes_in_the_home_of_whom_the_cluster_knows(tmp_path):
    """Which is the ticket's owner, whatever this machine calls this user."""
    yarn, hadoop = platforms.load("yarn"), Asked(tmp_path)
    assert all(check.ok for check in _yarn_checks._storage(hadoop, yarn.Options()))
    assert (None, "-mkdir", "-p", ".sparkStaging") in hadoop.said
    elsewhere = yarn.Options(conf={"spark.yarn.stagingDir": "hdfs:///tmp"})
    assert all(check.ok for check in _yarn_checks._storage(hadoop, elsewhere))
    assert (None, "-mkdir", "-p", "hdfs:///tmp/.sparkStaging") in hadoop.said


@pytest.mark.parametrize("status", [0, 1])
def test_the_doctor_asks_as_the_keytabs_owner(tmp_path, monkeypatch, status: int):
    site(tmp_path, **KERBEROS)
    kinit = tmp_path / "kinit"
    kinit.write_text(f'#!/bin/sh\necho "kinit: $@" >&2\nexit {status}\n')
    kinit.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    options = platforms.load("yarn").Options(principal="me@REALM", keytab=str(tmp_path / "keys"))
    refused, hadoop = _yarn_checks._by_keys(Asked(tmp_path), options, tmp_path)
    if status:
        assert refused is not None and not refused.ok and "me@REALM" in refused.detail
    else:
        assert refused is None and hadoop.own == {"KRB5CCNAME": f"FILE:{tmp_path / 'ticket'}"}


@pytest.mark.parametrize("encrypts", [False, True])
@pytest.mark.parametrize("name", ["me.keytab", "client.keytab"])
def test_the_keytab_goes_to_containers_where_a_server_of_keys_asks(
    tmp_path, monkeypatch, name: str, encrypts: bool
):
    """By another name than its own, for Spark takes none twice; no copy of it stays here, and the
    files that a site sends itself go there, too."""
    keys = {"hadoop.security.key.provider.path": "kms://http@host:9600/kms"} if encrypts else {}
    site(tmp_path, **KERBEROS, **keys)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    (keytab := tmp_path / name).write_bytes(b"keys")
    conf = {"spark.yarn.dist.files": "hdfs:///site/file"}
    yarn = platforms.load("yarn")
    options = yarn.Options(principal="me@REALM", keytab=str(keytab), python="/p", conf=conf)
    (folder := tmp_path / "sent").mkdir()
    settings, _ = yarn._settings(options, folder, lambda text: None)
    *sent, sites = settings["spark.yarn.dist.files"].split(",")
    there = settings.get("spark.executorEnv.KRB5_CLIENT_KTNAME")
    assert sites == "hdfs:///site/file"
    assert sent == ([(folder / there).as_uri()] if encrypts else [])
    if encrypts:
        assert there != name and (folder / there).readlink() == keytab


@pytest.mark.parametrize("mode", ["client", "cluster"])
def test_a_sites_own_java_options_stay(tmp_path, monkeypatch, mode: str):
    """A krb5.conf that lies elsewhere is named by them."""
    site(tmp_path)
    own = "-Djava.security.krb5.conf=/site/krb5.conf"
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", own)
    held: dict[str, str] = {}

    def follow(self, command, *, env, cwd):
        held.update(env)
        return 0

    monkeypatch.setattr(_application.Application, "follow", follow)
    monkeypatch.setattr(_child, "run", lambda command, *, env, cwd: held.update(env) or 0)
    yarn = platforms.load("yarn")
    conf = {"spark.driver.extraJavaOptions": own}
    yarn.submit(Task(("run",)), yarn.Options(mode=mode, python="/p", conf=conf), note=print)
    if mode == "cluster":
        java = held["SPARK_SUBMIT_OPTS"]
    else:
        words = shlex.split(held["PYSPARK_SUBMIT_ARGS"])
        java = words[words.index("--driver-java-options") + 1]
    assert java.startswith(f"{own} -Dlog4j2")


def test_a_log_that_a_node_shows_nobody_is_not_waited_for(tmp_path, monkeypatch):
    def fetched(page):
        raise urllib.error.HTTPError(page, 401, "who are you?", Message(), None)

    monkeypatch.setattr(_application, "fetched", fetched)
    monkeypatch.setenv("PATH", str(tmp_path))  # without Hadoop's own client
    told: list[str] = []
    made = _application.Application(_hadoop.Hadoop(tmp_path), note=told.append)
    made.id, made._page = "application_1_0001", "http://node:1/logs/stdout"
    made._drain()
    assert told == [f"the end of the driver's log cannot be read here: {made._reading}"]


TOKEN = b"HDTS\x00\x01\x0e127.0.0.1:8020 me HDFS_DELEGATION_TOKEN\x0e127.0.0.1:8020\x00"


@pytest.mark.parametrize(
    ("authority", "opened"),
    [
        ("localhost:8020", "127.0.0.1:8020"),
        ("", "127.0.0.1:8020"),  # the cluster's own
        ("localhost:9000", "localhost:9000"),
        ("nameservice", "nameservice"),
    ],
)
def test_a_name_node_is_called_as_its_token_calls_it(
    tmp_path, monkeypatch, authority: str, opened: str
):
    site(tmp_path, **{"fs.defaultFS": "hdfs://localhost:8020"})
    (tmp_path / "tokens").write_bytes(TOKEN)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    monkeypatch.delenv("HADOOP_TOKEN_FILE_LOCATION", raising=False)
    assert hdfs._tokens_own(authority, {}) == authority
    monkeypatch.setenv("HADOOP_TOKEN_FILE_LOCATION", str(tmp_path / "tokens"))
    assert hdfs._tokens_own(authority, {}) == opened
