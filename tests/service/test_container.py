"""The image's own command with its packages alone: another user, no home, nothing to write to."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.service import image, made

from clinloom.deploy.serving import PORT

PROJECT = tomllib.loads((image.ROOT / "pyproject.toml").read_text())["project"]
LOCK = (image.ROOT / "requirements.lock").read_text()
LINUX = {"sys_platform": "linux", "python_version": "3.13", "python_full_version": "3.13.0"}
PATIENCE = 120  # seconds that a busy machine may take


def closure(lines: list[str], without: tuple[str, ...] = ()) -> set[str]:
    """What requirements ask for on the image's Python, and what that asks for."""
    found: set[tuple[str, str]] = set()
    asked = [Requirement(line) for line in lines]
    while asked:
        one = asked.pop()
        name = canonicalize_name(one.name)
        for extra in {"", *one.extras} if name not in without else ():
            if (name, extra) in found:
                continue
            found.add((name, extra))
            more = map(Requirement, importlib.metadata.requires(name) or ())
            given = {**LINUX, "extra": extra}
            asked += [m for m in more if m.marker is None or m.marker.evaluate(given)]
    return {name for name, _ in found}


def test_it_holds_what_the_service_asks_for_but_spark_and_pandas():
    lines = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["serve"]
    assert image.needed("serve") == closure(lines, without=("pyspark", "pandas"))


@pytest.mark.parametrize("kind", ["build", "s3", "azure", "gcs", "hdfs"])
def test_it_holds_what_else_a_kind_asks_for(kind):
    lines = ["hatchling"] if kind == "build" else PROJECT["optional-dependencies"][kind]
    try:
        whole = closure(lines)
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    held = {kind} if kind == "build" else {kind, "serve"}
    assert whole <= image.needed(*held) and image.needed(kind) <= whole


def test_what_is_installed_has_the_hashes_of_the_lock():
    locked = runpy.run_path(str(image.FOLDER / "locked.py"))["locked"]
    packages = (image.FOLDER / "packages.txt").read_text()
    found = locked(LOCK, packages, {"serve", "build"})
    assert {*re.findall(r"^([a-z0-9.-]+)==", found, re.M)} == image.needed("serve", "build")
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=[a-z])", found))
    assert {*found.splitlines()} <= {*LOCK.splitlines()}
    for wrong in ({"serve", "s4"}, {"serf"}):
        with pytest.raises(SystemExit, match="not there"):
            locked(LOCK, packages, wrong)
    with pytest.raises(SystemExit, match="not there: nothing-like-it"):
        locked(LOCK, packages + "\nnothing-like-it serve\n", {"serve"})
    installs = [rest for name, rest in image.instructions() if name == "RUN" and "install" in rest]
    parts = [part for rest in installs for part in rest.split("&&") if " install " in part]
    assert len(parts) == 3 and all("--require-hashes" in p or "--no-index" in p for p in parts)


def test_the_dockerfile_says_who_where_and_how():
    bases = [rest.split()[0] for name, rest in image.instructions() if name == "FROM"]
    assert bases == ["${PYTHON_IMAGE}"] * 2
    assert ("ARG", "PYTHON_IMAGE=python:3.13-slim") in image.instructions()
    uid, gid = image.last("USER").split(":")
    assert int(uid) > 0 and int(gid) > 0
    assert image.last("STOPSIGNAL") == "SIGTERM" and image.last("EXPOSE") == str(PORT)
    assert f'image.version="{PROJECT["version"]}"' in image.last("LABEL")
    health = image.words(image.last("HEALTHCHECK").partition("CMD ")[2])
    assert f"'127.0.0.1', {PORT}" in health[-1] and "/health" in health[-1]
    assert all(command[0] == f"{image.PREFIX}/bin/python" for command in (health, entry()))


def test_no_place_of_packages_and_no_secret_is_written():
    for file in (image.ROOT / ".dockerignore", *image.FOLDER.rglob("*")):
        if file.is_file() and file.suffix != ".pyc":
            found = re.search(r"https?://|--(extra-)?index-url|PIP_INDEX", file.read_text())
            assert found is None, file


def test_what_it_copies_is_let_through():
    ignored = (image.ROOT / ".dockerignore").read_text().splitlines()
    own = [rest.split()[:-1] for name, rest in image.instructions() if name == "COPY"]
    named = {part for parts in own if not parts[0].startswith("--from") for part in parts}
    assert named == {line[1:] for line in ignored if line.startswith("!")} and "*" in ignored
    assert all((image.ROOT / part).exists() for part in named)


def entry() -> list[str]:
    """The command line that the image starts."""
    return image.words(image.last("ENTRYPOINT")) + image.words(image.last("CMD"))


class Contained:
    """The image's command, with its places in a folder."""

    def __init__(self, folder: Path, bundle: Path):
        image.install(folder / "opt")
        shutil.copytree(bundle, folder / "bundle")
        self.token = os.urandom(16).hex()
        (folder / "token").write_text(self.token + "\n")
        self.tmp = folder / "tmp"
        self.tmp.mkdir()
        self.tmp.chmod(0o1777)
        self._folder = folder
        self._who = self._other()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.begun = time.perf_counter()
        command = [*map(self._here, entry()), "--port", str(self.port)]
        self.process = self._start(command, stderr=(folder / "log").open("wb"))
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE)

    def _here(self, word: str) -> str:
        for place, own in (
            (image.PREFIX, "opt"),
            ("/bundle", "bundle"),
            ("/run/secrets/clinloom/token", "token"),
        ):
            word = re.sub(rf"^((?:file:)?){place}", rf"\g<1>{self._folder / own}", word)
        return word

    def _other(self) -> dict[str, Any]:
        """The image's user, where this one is root and others may read what is needed."""
        packages = Path(httpx.__file__).parent
        needed = (image.ROOT / "src", packages, Path(sys.base_prefix) / "bin", self._folder)
        folders = {folder for place in needed for folder in (place, *place.resolve().parents)}
        if os.geteuid() != 0 or not all(folder.stat().st_mode & 0o001 for folder in folders):
            return {}
        uid, gid = map(int, image.last("USER").split(":"))
        return {"user": uid, "group": gid, "extra_groups": ()}

    def _start(self, command: list[str], **more: Any) -> subprocess.Popen[bytes]:
        env = {**image.environment(), "TMPDIR": str(self.tmp)}
        return subprocess.Popen(command, cwd="/", env=env, **self._who, **more)

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def ready(self) -> httpx.Response:
        """The answer of /ready, when there is one."""
        while self.process.poll() is None and time.perf_counter() < self.begun + PATIENCE:
            with contextlib.suppress(httpx.TransportError):
                return self.client.get("/ready")
            time.sleep(0.02)
        raise AssertionError(self.log)

    def healthy(self, port: int) -> bool:
        """Whether the image's own check finds it so at a port."""
        check = image.words(image.last("HEALTHCHECK").partition("CMD ")[2])
        command = [self._here(word).replace(str(PORT), str(port)) for word in check]
        return self._start(command, stderr=subprocess.DEVNULL).wait(PATIENCE) == 0


@pytest.fixture
def contained(published: Path) -> Iterator[Contained]:
    """It runs in a folder that everybody may read, and ends with the test."""
    folder = Path(tempfile.mkdtemp(prefix="clinloom-image-"))
    folder.chmod(0o755)
    found = Contained(folder, published)
    yield found
    found.client.close()
    if found.process.poll() is None:
        found.process.kill()
        found.process.wait()
    shutil.rmtree(folder)


def test_it_starts_answers_and_ends(contained: Contained):
    assert contained.ready().json()["status"] == "ready", contained.log
    ask, bears = contained.client.post, {"Authorization": f"Bearer {contained.token}"}
    fhir = {"content": made.body(1), "headers": {"content-type": "application/fhir+json"}}
    assert ask("/fhir/$predict", **fhir).status_code == 401
    fhir["headers"] |= {"accept": "application/json", **bears}
    answer = ask("/fhir/$predict?explain=true", **fhir)
    assert answer.status_code == 200, contained.log
    assert answer.json()["predictions"][0]["contributions"]["reasons"]
    assert contained.client.get("/metrics", headers=bears).status_code == 200
    assert contained.healthy(contained.port) and not contained.healthy(1)
    if contained._who:
        status = Path(f"/proc/{contained.process.pid}/status").read_text()
        assert re.search(r"^Uid:\s+65532\s+65532\s", status, re.MULTILINE)
    contained.process.send_signal(signal.SIGTERM)
    asked = time.perf_counter()
    assert contained.process.wait(PATIENCE) == 0, contained.log
    assert time.perf_counter() - asked < 10  # nothing runs: at once, but for a busy machine
    assert not [*contained.tmp.iterdir()]  # one worker writes nothing at all
    assert contained.token not in contained.log
