"""YARN without a cluster: what is followed, what is told, what the doctor finds."""

from __future__ import annotations

import json
import queue
import shlex
import sys

import pytest

from clinloom import platforms
from clinloom.platforms import Outcome, _application, _child, _hadoop, _yarn_checks

PAGE = """Container: container_1_0001_01_000001 on node:1
LogAggregationType: LOCAL
===================
LogType:stdout
LogLength:1
LogContents:
{lines}
End of LogType:stdout
"""
GONE = "gone"


class Cluster:
    """A ResourceManager that knows where the driver's log is, and how it ended."""

    def __init__(self, diagnostics: str = "", collected: tuple[str, ...] = ()):
        self.diagnostics, self.collected = diagnostics, list(collected)

    where = "http://node:1/node/containerlogs/container_1_0001_01_000001/me"

    def ask(self, path):
        return {"app": {"amContainerLogs": self.where, "diagnostics": self.diagnostics}}

    def logs(self, *args, env):
        assert args[:2] == ("-applicationId", "application_1_0001")
        return self.collected.pop(0) if self.collected else "Log aggregation has not completed"


def followed(monkeypatch, pages: list[str], lines: list[str], code: int, cluster=None):
    shown = iter(pages)
    last = [""]

    def fetched(page):
        assert page == "http://node:1/ws/v1/node/containers/container_1_0001_01_000001/logs/stdout"
        last[0] = next(shown, last[0])
        if last[0] == GONE:
            raise OSError("the container is gone")
        return last[0].encode()

    monkeypatch.setattr(_application, "fetched", fetched)
    monkeypatch.setattr(_application, "EVERY", -1.0)
    monkeypatch.setattr(_application, "PATIENCE", 0.05)
    told: list[str] = []
    made = _application.Application(cluster or Cluster(), note=told.append)
    waiting: queue.Queue[str | None] = queue.Queue()
    for line in [*lines, None]:
        waiting.put(line)
    monkeypatch.setattr(waiting, "get", lambda timeout, get=waiting.get: get())
    made._listen(waiting)
    code = made._code(code)
    return [*told, *(made.fault or "").splitlines()], code


REPORTS = [
    f"INFO Client: Application report for application_1_0001 (state: {state})\n"
    for state in ("ACCEPTED", "ACCEPTED", *["RUNNING"] * 4)
]


def stage(name: str) -> str:
    return json.dumps({"stage": name, "rows": 1, "seconds": 1.0, "reused": False})


def test_each_state_and_each_line_of_progress_is_told_once(monkeypatch):
    frame, empty = PAGE.split("LogContents")[0], PAGE.format(lines="").replace(":\n\n", ":\n")
    grown = [stage("acquire"), "26/11/24 INFO Spark: noise", stage("clean"), '{"stage": "co']
    whole = [*grown[:3], stage("cohort"), '{"exit": 0}']
    pages = [frame, empty, PAGE.format(lines="\n".join(grown)), PAGE.format(lines="\n".join(whole))]
    lines = [*REPORTS, "\t final status: SUCCEEDED\n"]
    told, code = followed(monkeypatch, pages, lines, 0)
    states = [f"YARN: application_1_0001 {state}" for state in ("accepted", "running")]
    assert [t for t in told if t.startswith("YARN")] == states
    assert [json.loads(t)["stage"] for t in told if "{" in t] == ["acquire", "clean", "cohort"]
    assert code == 0


BEGUN = PAGE.format(lines=f"{stage('acquire')}\n{stage('clean')}\n")
WHOLE = PAGE.format(lines="\n".join([*map(stage, ("acquire", "clean", "cohort")), '{"exit": 0}']))


@pytest.mark.parametrize(
    ("pages", "collected"),
    [
        ([*[BEGUN] * 6, GONE, GONE, WHOLE], ()),
        ([*[BEGUN] * 6, GONE], ("", "", WHOLE)),
        ([*[BEGUN] * 6, WHOLE], ()),
    ],
    ids=["its node answers late", "the cluster has collected it", "the log grows at its end"],
)
def test_no_line_of_the_drivers_is_lost_at_its_end(monkeypatch, pages, collected):
    told, code = followed(monkeypatch, pages, REPORTS, 0, Cluster(collected=collected))
    assert [json.loads(t)["stage"] for t in told if "{" in t] == ["acquire", "clean", "cohort"]
    assert code == 0 and not [t for t in told if "yarn logs" in t]


def test_a_log_whose_end_cannot_be_read_is_told_with_the_command_that_reads_it(monkeypatch):
    told, _ = followed(monkeypatch, [*[BEGUN] * 6, GONE], REPORTS, 0)
    assert [json.loads(t)["stage"] for t in told if "{" in t] == ["acquire", "clean"]
    (line,) = [t for t in told if "cannot be read" in t]
    assert line.endswith("yarn logs -applicationId application_1_0001 -log_files stdout")


@pytest.mark.parametrize("status", [1, 2])
def test_the_exit_code_is_the_commands_own(monkeypatch, status: int):
    fault = "clinloom: study.yaml: the study has a fault:\n  cohort: is required\n  → mend it"
    page = PAGE.format(lines=f'{fault}\n  File "x"\n{{"exit": {status}}}\n  after')
    told, code = followed(monkeypatch, [page], REPORTS, 1)
    assert code == status
    assert "study.yaml: the study has a fault:" in told and "  → mend it" in told
    assert "  after" not in told
    diagnostics = f"exitCode: 13 … User application exited with status {status} …"
    _, code = followed(monkeypatch, [""], REPORTS, 1, Cluster(diagnostics))
    assert code == status
    for killed in ("exitCode: 13", "User application exited with status 143"):
        assert followed(monkeypatch, [""], REPORTS, 1, Cluster(killed))[1] == 1


def test_what_a_driver_there_printed_and_why_it_failed_come_back(monkeypatch):
    said = {"exit": 0, "result": json.dumps({"rows": 3}, indent=1)}
    shown = [PAGE.format(lines=json.dumps(said))]
    monkeypatch.setattr(_application, "fetched", lambda page: shown[0].encode())
    made = _application.Application(Cluster(), note=print)
    made.id = "application_1_0001"
    made._drain()
    assert made._code(0) == 0 and made.result == {"rows": 3} and made.fault is None
    made = _application.Application(Cluster(), note=print)
    made._hear("ERROR Client: java.lang.IllegalStateException: no such queue\n")
    assert made._code(1) == 1 and "no such queue" in (made.fault or "")


def test_a_driver_of_yarns_on_this_machine_has_streams_of_its_own(bare_yarn, monkeypatch):
    """spark-submit would hand on its results and its progress as one."""
    held = {}

    def run(command, *, env, cwd):
        held.update(command=command, args=shlex.split(env["PYSPARK_SUBMIT_ARGS"]))
        return 3

    monkeypatch.setattr(_child, "run", run)
    yarn = platforms.load("yarn")
    options = yarn.Options(mode="client", python="/there/python", conf={"spark.a": "b c"})
    task = platforms.Task(("run", "study.yaml", "--json"), {"study.yaml": b"x"})
    assert yarn.submit(task, options, note=print) == Outcome(3, None)
    assert held["command"] == [sys.executable, "-m", "clinloom", *task.command]
    assert held["args"][:2] == ["--master", "yarn"] and held["args"][-1] == "pyspark-shell"
    assert {"spark.a=b c", "spark.submit.deployMode=client"} <= set(held["args"])


@pytest.fixture
def bare_yarn(tmp_path, monkeypatch):
    """A cluster's configuration that says nothing."""
    (tmp_path / "core-site.xml").write_text("<configuration/>")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))


def test_an_application_that_waits_for_room_says_so_once(monkeypatch):
    waiting = Cluster("Queue's AM resource limit exceeded.\n  Details: AM Partition = <DEFAULT>")
    monkeypatch.setattr(_application, "BUSY", -1.0)
    accepted = [*REPORTS[:2], "\n", "\n"]
    told, _ = followed(monkeypatch, [""], accepted, 0, waiting)
    assert not [t for t in told if "waits for room" in t]  # it has a container, and starts
    monkeypatch.setattr(waiting, "where", "")
    told, _ = followed(monkeypatch, [""], accepted, 0, waiting)
    (line,) = [t for t in told if "waits for room" in t]
    assert "AM resource limit exceeded. Details" in line and told.index(line) == 1


def test_the_fault_of_a_driver_that_made_no_session_is_read_while_it_is_accepted(monkeypatch):
    page = PAGE.format(lines='clinloom: x: no bundle\n  → mend it\n{"exit": 2, "result": ""}\n')
    told, code = followed(monkeypatch, [page, GONE], REPORTS[:2], 1)
    assert told[-2:] == ["x: no bundle", "  → mend it"] and code == 2


def test_what_spark_submit_refuses_is_told_as_our_fault(monkeypatch):
    said = (
        'Exception in thread "main" java.lang.IllegalArgumentException: Required executor memory'
        " (4096 MB), offHeap memory (0) MB, overhead (2048 MB), and PySpark memory (0 MB) is above"
        " the max threshold (2048 MB) of this cluster! Please check the values\n"
    )
    made = _application.Application(Cluster(), note=print)
    made._hear(said)
    assert made._code(1) == 1
    assert (made.fault or "").startswith("platform.yarn: an executor is larger than the 2048 MB")


def test_collected_logs_are_asked_of_hadoops_own_client_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _hadoop.Hadoop(tmp_path).logs("-am", "1") == ""
    client = tmp_path / "yarn"
    client.write_text('#!/bin/sh\necho "$HADOOP_CONF_DIR $@"\n')
    client.chmod(0o755)
    assert _hadoop.Hadoop(tmp_path).logs("-am", "1") == f"{tmp_path} logs -am 1\n"


class Room:
    """A cluster of one node with 4 GB, a limit of 3 GB, and a queue that may have half of it."""

    def limit(self, key):
        return 3072 if key == "yarn.scheduler.maximum-allocation-mb" else None

    def ask(self, path):
        node = {"state": "RUNNING", "usedMemoryMB": 3000, "availMemoryMB": 1096}
        half = {"queueName": "default", "absoluteMaxCapacity": 50.0}
        return {
            "nodes": {"nodes": {"node": [node]}},
            "metrics": {"clusterMetrics": {"totalMB": 4096, "availableMB": 1096}},
            "scheduler": {"scheduler": {"schedulerInfo": {"queues": {"queue": [half]}}}},
        }[path]


@pytest.mark.parametrize(
    ("memory", "mode", "wrong"),
    [
        ("4g", "cluster", {"executor", "memory there", "room in the queue", "room now"}),
        ("3g", "cluster", {"executor", "room in the queue", "room now"}),
        ("1g", "cluster", {"room in the queue", "room now"}),  # beside a driver of 1 GB
        ("1g", "client", {"room in the queue", "room now"}),
        ("512m", "client", {"room now"}),
    ],
)
def test_the_doctor_tells_where_no_executor_will_ever_start(memory: str, mode: str, wrong):
    options = platforms.load("yarn").Options(
        mode=mode, memory=memory, overhead="256m", driver_memory="1g"
    )
    found = list(_yarn_checks._room(Room(), options))
    assert {check.name for check in found if not check.ok} == wrong and len(found) == 4
    assert all(check.mend for check in found if not check.ok)
    assert [check.required for check in found] == [True, True, True, False]


def test_a_clusters_settings_are_read_with_their_references(tmp_path):
    def site(name, **settings):
        rows = "".join(
            f"<property><name>{k}</name><value>{v}</value></property>" for k, v in settings.items()
        )
        (tmp_path / name).write_text(f"<configuration>{rows}</configuration>")

    site("core-site.xml", **{"hadoop.security.authentication": "kerberos"})
    site(
        "yarn-site.xml",
        **{
            "yarn.resourcemanager.ha.rm-ids": "a,b",
            "yarn.resourcemanager.hostname.a": "one",
            "my.host": "two",
            "yarn.resourcemanager.webapp.address.b": "${my.host}:99",
        },
    )
    found = _hadoop.Hadoop(tmp_path)
    assert found.kerberos and found.managers == ["http://one:8088", "http://two:99"]


def test_the_doctor_tells_whether_there_are_keys_or_a_ticket(tmp_path, monkeypatch):
    name = "hadoop.security.authentication"
    rows = f"<property><name>{name}</name><value>kerberos</value></property>"
    (tmp_path / "core-site.xml").write_text(f"<configuration>{rows}</configuration>")
    hadoop, yarn = _hadoop.Hadoop(tmp_path), platforms.load("yarn")
    keys = tmp_path / "me.keytab"
    with_keys = yarn.Options(principal="me@REALM", keytab=str(keys))
    for there in (False, True):
        (found,) = _yarn_checks.ticket(hadoop, with_keys)
        assert found.ok == there and "me@REALM" in found.detail
        keys.write_bytes(b"")
    klist = tmp_path / "klist"
    monkeypatch.setenv("PATH", str(tmp_path))
    for status in (1, 0):
        klist.write_text(f"#!/bin/sh\nexit {status}\n")
        klist.chmod(0o755)
        (found,) = _yarn_checks.ticket(hadoop, yarn.Options())
        assert found.ok == (status == 0) and (found.ok or "kinit" in found.mend)
    klist.unlink()
    (found,) = _yarn_checks.ticket(hadoop, yarn.Options())
    assert not found.ok and not found.required
