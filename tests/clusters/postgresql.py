"""PostgreSQL: a real server on the loopback address, from Debian's package, with one database."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.clusters import parts
from tests.clusters.daemons import Daemons, free_ports, listens, started

USER, PASSWORD = "reader", "a password of the tests"
NOBODY = 65534  # the server refuses to be root
PACKAGED = Path("/usr/lib/postgresql")  # Debian keeps each version's programs apart


@dataclass(frozen=True)
class PostgreSQL:
    """A running server."""

    port: int

    @property
    def url(self) -> str:
        """The database as JDBC names it."""
        return f"jdbc:postgresql://127.0.0.1:{self.port}/postgres"

    def sql(self, *commands: str) -> None:
        """Do these, psql's own with a backslash among them."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", "postgres"]
        words = [word for command in commands for word in ("-c", command)]
        strict = ["-X", "-q", "-v", "ON_ERROR_STOP=1"]
        env = {**os.environ, "PGPASSWORD": PASSWORD}
        subprocess.run([_program("psql"), *where, *strict, *words], env=env, check=True)


def postgresql() -> AbstractContextManager[PostgreSQL]:
    """Start PostgreSQL. Raises Missing, NotReady."""
    return started("postgresql", _start)


def _start(daemons: Daemons) -> PostgreSQL:
    folder, data, (port,) = daemons.folder, daemons.folder / "data", free_ports(1)
    (folder / "password").write_text(PASSWORD)
    data.mkdir(mode=0o700)
    prefix: list[str] = []
    if os.geteuid() == 0:
        folder.chmod(0o711)
        (folder / "password").chmod(0o644)
        os.chown(data, NOBODY, NOBODY)
        prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    made = [_program("initdb"), "-D", data, "-U", USER, "-A", "scram-sha-256", "--no-sync"]
    made += [f"--pwfile={folder / 'password'}", "--no-locale", "-E", "UTF8"]
    subprocess.run([*prefix, *map(str, made)], cwd=folder, check=True, capture_output=True)
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    daemons.start("postgresql", [*prefix, _program("postgres"), "-D", str(data), *words])
    daemons.await_ready(lambda: listens(port), what="PostgreSQL")
    return PostgreSQL(port)


def _program(name: str) -> str:
    """One of the server's programs, of its newest version. Raises Missing."""
    found = shutil.which(name) or max(map(str, PACKAGED.glob(f"*/bin/{name}")), default="")
    return found or parts.program(name, package="postgresql")
