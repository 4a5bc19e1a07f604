"""What bounds a service and what it asks of others: time, folders, and what is told twice."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import pytest
import uvicorn
from pydantic import ValidationError

from clinloom.deploy import _protocol, outbound, serving
from clinloom.deploy._assessments import Asked, asked
from clinloom.deploy._metrics import Metrics
from clinloom.deploy._options import Options
from clinloom.deploy._problems import Problem
from clinloom.deploy._standing import Standing
from clinloom.errors import StoreError, UsageError
from clinloom.study.cds_hooks import CdsHooks


def listening():
    found = socket.create_server(("127.0.0.1", 0))
    return found, f"http://127.0.0.1:{found.getsockname()[1]}/"


def test_an_answer_that_trickles_is_not_waited_for():
    server, url = listening()

    def trickle():
        link, _ = server.accept()
        link.recv(4096)
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n")
        for _ in range(50):
            try:
                link.sendall(b"x")
            except OSError:
                break
            time.sleep(0.1)
        link.close()

    threading.Thread(target=trickle, daemon=True).start()
    begin = time.monotonic()
    with server, pytest.raises(outbound.Unreachable):
        outbound.get(url, where="keys", until=begin + 0.5, most=1000)
    assert time.monotonic() - begin < 3


def test_an_answer_is_whole_also_where_the_line_stays_open():
    server, url = listening()
    links = []

    def tell():
        links.append(server.accept()[0])
        links[0].recv(4096)
        links[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")

    threading.Thread(target=tell, daemon=True).start()
    with server:
        assert outbound.get(url, where="keys", until=time.monotonic() + 30, most=9) == b"yes"
    links[0].close()


def test_whose_second_head_does_not_come_is_cut(monkeypatch):
    monkeypatch.setattr(_protocol.Prompt, "SLOW", 0.5)

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    server, _ = listening()
    told = {"http": _protocol.Prompt, "log_config": None, "lifespan": "off", "ws": "none"}
    serving_ = uvicorn.Server(uvicorn.Config(app, timeout_keep_alive=60, **told))
    thread = threading.Thread(target=serving_.run, kwargs={"sockets": [server]})
    thread.start()
    try:
        with socket.create_connection(server.getsockname(), 20) as link:
            link.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert link.recv(4096).startswith(b"HTTP/1.1 200")
            link.sendall(b"GET / HT")
            while link.recv(4096):
                pass
    finally:
        serving_.should_exit = True
        thread.join()


def test_the_folder_in_which_workers_count_goes_with_them(monkeypatch):
    monkeypatch.delenv(serving.SHARED, raising=False)
    seen = []
    monkeypatch.setattr(uvicorn, "run", lambda *_, **__: seen.append(os.environ[serving.SHARED]))
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        serving.serve("bundle", workers=2)
    finally:
        os.environ.pop(serving.TOLD, None)
        for one, handler in before.items():
            signal.signal(one, handler)
    assert seen and not os.path.exists(seen[0]) and serving.SHARED not in os.environ


def test_a_bundle_that_could_not_be_read_is_tried_again(monkeypatch):
    class Loaded:
        def __init__(self, mark):
            self.bundle = type("Bundle", (), {"mark": mark})
            self.name = {"mark": mark}

        def warm(self):
            pass

    monkeypatch.setattr(Standing, "_version", lambda self, _: version)
    monkeypatch.setattr("clinloom.deploy._standing.Served.load", lambda *_: load())
    version, load = "1", lambda: Loaded("a")
    standing = Standing("x", source=None, shadow=None, every=1, counts=Metrics())

    def broken():
        raise StoreError("a moment's fault")

    version, load = "2", broken
    standing.look()
    assert standing.faults and standing.current.name == {"mark": "a"}
    load = lambda: Loaded("b")  # noqa: E731
    standing.look()
    assert not standing.faults and standing.current.name == {"mark": "b"}


def test_what_is_asked_twice_is_not_guessed():
    at = b'{"name":"at","valueInstant":"2025-01-0%dT00:00:00Z"}'
    twice = b'{"resourceType":"Parameters","parameter":[%s,%s]}' % (at % 1, at % 2)
    with pytest.raises(Problem):
        asked(twice)
    question = Asked(b"", subject="Patient/1", at="2025-01-01T00:00:00Z")
    assert question.or_else(None, question.at) == ("Patient/1", question.at)
    with pytest.raises(Problem) as caught:
        question.or_else("Patient/2", None)
    assert caught.value.told.status == 400 and caught.value.told.detail == "subject is told twice"


def test_origins_are_as_browsers_write_them_and_no_url_holds_a_password():
    hooks = CdsHooks(anonymous=True, origins=["https://EHR.example.org/"])
    assert hooks.origins == ("https://ehr.example.org",)
    with pytest.raises(ValidationError, match="without user"):
        CdsHooks(anonymous=True, about="https://:secret@ehr.example.org")


def test_an_unknown_hook_is_told_with_the_nearest():
    with pytest.raises(ValidationError, match=r"no 'patient-veiw'; did you mean 'patient-view'\?"):
        CdsHooks(anonymous=True, hooks=["patient-veiw"])
    with pytest.raises(ValidationError, match="there are patient-view, order-select"):
        CdsHooks(anonymous=True, hooks=["elsewhere"])


@pytest.mark.parametrize("bound", [{"watch": 0.0}, {"at_once": 0}, {"timeout": float("nan")}])
def test_a_bound_that_is_none_is_refused(bound):
    [name] = bound
    with pytest.raises(UsageError, match="above 0") as told:
        Options(**bound)
    assert told.value.where == f"--{name.replace('_', '-')}"
