"""Files examined in a process apart, which a damaged file may abort, stall or fill alone.

Native decoders abort the process on some broken files, loop on others, and a few kilobytes may ask
for gigabytes. So one child a worker opens what hospitals send: it gets a file's bytes and answers
in JSON. Where it dies, that file is refused and the next one finds a new child. The child is this
Python with nothing of the environment's secrets; it prints nothing and leaves no core.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from array import array
from collections.abc import Mapping
from importlib import import_module
from typing import IO, Any

from clinloom.errors import MissingDependency

SECONDS = 60.0  # for one file, and one more a megabyte
MEMORY = 2 << 30  # bytes for one file beside what the process holds; and twice the file
KEPT = (
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "PYTHONHOME",
    "SYSTEMROOT",
    "TMPDIR",
    "LANG",
)
ALONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
START = (
    f"import json, sys; sys.path[:] = json.loads(sys.argv[1]);from {__name__} import serve; serve()"
)
READY = b"ready\n"
PACKED, FEW = "bytes", 8
PIPE = 1 << 20  # bytes that wait in the pipe, where the system lets them: a slice at once


def examined(kernel: str, data: bytes, told: Mapping[str, Any]) -> dict[str, Any]:
    """What the module ``kernel``'s ``examine(data, told)`` yields, merged; plain data only.

    Where the file ends the process, what it had yielded until then and ``refused``:
    ``decoder_crashed``, ``decoder_hung`` (longer than a minute and a second a megabyte), or
    ``oversized_image`` (more than 2 GB of memory).
    """
    with _lock:
        for fresh in (False, True):
            child = _child(fresh)
            try:
                _asked(child, kernel, data, told)
                break
            except OSError:  # it was ended while it was idle
                if fresh:
                    raise
        try:
            return _answer(child)
        except BaseException:  # what is left of its answer would be taken for the next one's
            child.kill()
            close()
            raise


def _asked(
    child: subprocess.Popen[bytes], kernel: str, data: bytes, told: Mapping[str, Any]
) -> None:
    request = {"kernel": kernel, "told": told, "size": len(data)}
    request |= {"seconds": SECONDS + len(data) / 1e6, "memory": MEMORY + 2 * len(data)}
    into = _pipe(child.stdin)
    into.write(json.dumps(request).encode() + b"\n")
    into.write(data)
    into.flush()


def _answer(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in _pipe(child.stdout):
        said = json.loads(line) if line.endswith(b"\n") else {}
        if said is None:
            return found
        found |= {name: _plain(value) for name, value in said.items()}
    ended = close()
    return {**found, "refused": "decoder_hung" if ended == -signal.SIGALRM else "decoder_crashed"}


_lock = threading.Lock()
_held: subprocess.Popen[bytes] | None = None


def _child(fresh: bool) -> subprocess.Popen[bytes]:
    """This process's child; a new one where there is none. Raises MissingDependency."""
    global _held
    if fresh:
        close()
    if _held is None:
        env = {name: os.environ[name] for name in KEPT if name in os.environ}
        _held = subprocess.Popen(  # noqa: S603 - this Python
            [sys.executable, "-c", START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**env, **ALONE},
        )
        with contextlib.suppress(AttributeError, OSError):
            fcntl.fcntl(_pipe(_held.stdin), fcntl.F_SETPIPE_SZ, PIPE)
        if _pipe(_held.stdout).readline() != READY:
            close()
            raise MissingDependency(
                "the process that decodes images did not start",
                where="sources",
                mend=f"does '{sys.executable}' start there, and find clinloom?",
            )
    return _held


def close() -> int | None:
    """Let the child go, and how it ended."""
    global _held
    child, _held = _held, None
    if child is None:
        return None
    with contextlib.suppress(OSError):
        _pipe(child.stdin).close()
    _pipe(child.stdout).close()
    try:
        return child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _forget() -> None:
    """In a fork of this process the child is the parent's."""
    global _held, _lock
    if _held is not None:
        _held.returncode = 0
    _held, _lock = None, threading.Lock()


atexit.register(close)
os.register_at_fork(after_in_child=_forget)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - the child is started with both
    return pipe


def serve() -> None:
    """Answer requests on standard input until it ends: the child's whole life.

    An alarm ends a request that takes too long, whatever the native code is doing.
    """
    import resource

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the parent's
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # what a decoder prints may hold a patient's values
        os.dup2(nothing, stream)
    answers.write(READY)
    answers.flush()
    for line in asked:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        data = asked.read(request["size"])
        if len(data) < request["size"]:
            return
        kernel = import_module(request["kernel"])
        with _bounded(request["memory"]):
            _told(kernel, data, request["told"], answers)
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(b"null\n")
        answers.flush()


def _packed(value: Any) -> Any:
    """Many numbers by name as their bytes: a third of the time that decimals take."""
    if isinstance(value, dict) and len(value) > FEW and set(map(type, value.values())) == {float}:
        return {PACKED: array("d", value.values()).tobytes().hex(), "names": list(value)}
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict) and PACKED in value:
        numbers = array("d", bytes.fromhex(value[PACKED]))
        return dict(zip(value["names"], numbers, strict=True))
    return value


def _told(kernel: Any, data: bytes, told: Mapping[str, Any], answers: IO[bytes]) -> None:
    try:
        for said in kernel.examine(data, told):
            packed = {name: _packed(value) for name, value in said.items()}
            answers.write(json.dumps(packed).encode() + b"\n")
            answers.flush()
    except MemoryError:
        answers.write(b'{"refused": "oversized_image"}\n')
    except BaseException:  # a panic of native code is no Exception
        answers.write(b'{"refused": "decoder_crashed"}\n')


@contextlib.contextmanager
def _bounded(memory: int) -> Any:
    """At most so many bytes more than the process has now, where the system tells and holds it."""
    import resource

    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123 - no file of a study's
            now = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    hard = before[1]
    most = now + memory if hard == resource.RLIM_INFINITY else min(now + memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
