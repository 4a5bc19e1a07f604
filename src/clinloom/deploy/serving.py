"""The process that serves a bundle: Uvicorn with the service's limits, one worker or several."""

from __future__ import annotations

import argparse
import gc
import importlib.abc
import ipaddress
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clinloom import files
from clinloom.deploy._options import WORDS, Options
from clinloom.errors import MissingDependency, UsageError

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOPBACK, PORT = "127.0.0.1", 8000
TOLD = "CLINLOOM_SERVED"  # what each worker is told, as JSON: references, never a secret
GRACE = 30  # seconds in which what runs may end
OBJECTS = 20_000  # that are made between looks for garbage
HEAD = 32 << 10  # bytes of a request's line and headers
SHARED = "PROMETHEUS_MULTIPROC_DIR"
NAMES = ("bundle", "host", "port", "workers", *WORDS)


def serve(
    bundle: str,
    *,
    host: str = LOOPBACK,
    port: int = PORT,
    workers: int = 1,
    **options: Any,
) -> None:
    """Serve a bundle until SIGTERM; what runs then is finished.

    ``options``: those of :class:`clinloom.deploy.rest.Options`. Raises UsageError for a host that
    others can reach and no token, MissingDependency, and ClinloomError for what is no bundle.
    """
    try:
        import uvicorn

        from clinloom.deploy import _protocol
    except ImportError as error:
        mend = "pip install 'clinloom[serve]'"
        raise MissingDependency(f"serving needs {error.name}", mend=mend) from None
    if not _loopback(host) and not options.get("token"):
        raise UsageError(
            f"'{host}' can be reached from other machines, and no token is asked for",
            where="--host",
            mend="give --token env:NAME or file:/PATH, or leave it at 127.0.0.1",
        )
    told = {"bundle": bundle, "host": host, "port": port, "options": options}
    told["storage"] = files.settings()
    os.environ[TOLD] = json.dumps(told)
    for ended in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ended, _end)  # which Uvicorn sends again when it has ended
    with _counted(workers):
        uvicorn.run(
            f"{__name__}:application" if workers > 1 else application(),
            factory=workers > 1,
            workers=workers,
            host=host,
            port=port,
            http=_protocol.Prompt,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=HEAD,
            timeout_graceful_shutdown=GRACE,
        )


@contextmanager
def _counted(workers: int) -> Iterator[None]:
    """A folder in which several workers count together, which goes with them."""
    if workers < 2 or SHARED in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="clinloom-metrics-") as folder:
        os.environ[SHARED] = folder
        try:
            yield
        finally:
            del os.environ[SHARED]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`serve` takes to a command's parser."""
    add = parser.add_argument
    add("bundle", help="the bundle of a run, an address")
    add("--host", default=LOOPBACK, help="where it listens; 127.0.0.1, the default: this machine")
    add("--port", type=int, default=PORT)
    add("--workers", type=int, default=1, help="processes")
    for name, (read, words) in WORDS.items():
        add(f"--{name.replace('_', '-')}", type=read, default=getattr(Options, name), help=words)


def application() -> FastAPI:
    """The application that ``serve`` described in the environment: what each worker makes."""
    _lean()
    from clinloom.deploy import _log, _protocol, rest

    _log.begin()
    told = json.loads(os.environ[TOLD])
    files.use(told["storage"])
    options = rest.Options(**told["options"])
    _protocol.Prompt.SLOW = options.slow
    made = rest.application(told["bundle"], options)
    _settled()
    _log.tell(
        "serving",
        **made.state.service.standing.current.name,
        address=f"http://{told['host']}:{told['port']}",
        reach="this machine alone" if _loopback(told["host"]) else "other machines",
    )
    return made


def _settled() -> None:
    """What is loaded stays: it is not looked through for garbage again, and what a request makes is
    gone with it, so that a few more objects may stand before anything is."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS, 20, 20)


def _end(*_: Any) -> None:
    """What was asked for: an end without a fault."""
    raise SystemExit(0)


def _lean() -> None:
    """Have pyarrow do without pandas, which it loads at its first array (half a second, 40 MB), and
    without threads of its own."""
    import pyarrow

    class Absent(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "pandas":
                raise ModuleNotFoundError(name=name)

    absent = Absent()
    sys.meta_path.insert(0, absent)
    pyarrow.array([""])  # it looks once
    pyarrow.set_cpu_count(1)  # requests are small, and more workers are more processes
    sys.meta_path.remove(absent)


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
