"""The locks pin every file by hash and name no place; the package holds all that it needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = ["requirements.lock", "requirements-spark35.lock"]


def entries(lock: str) -> dict[str, str]:
    """Package (with its marker, where a lock has two versions) -> the entry's text."""
    text = re.sub(r"^#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    blocks = re.split(r"\n(?=\S)", text.strip())
    return {block.split("\\")[0].strip(): block for block in blocks}


def plain(requirement: str) -> str:
    return re.split(r"[<>=!~;\[ ]", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_is_one_version_with_hashes(lock: str):
    for name, block in entries(lock).items():
        assert re.match(r"[a-z0-9.-]+==[0-9][^\s]*( ; .+)?$", name), name
        hashes = re.findall(r"--hash=(\S+)", block)
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in hashes), name


@pytest.mark.parametrize("lock", LOCKS)
def test_no_address_no_path_no_option(lock: str):
    text = (ROOT / lock).read_text()
    assert not re.search(r"https?:|//|@|file:|\.\./", text)
    assert set(re.findall(r"--[a-z-]+", text)) == {"--hash"}


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_that_is_declared_is_locked(lock: str):
    extras = {"images", "dicom", "s3", "test", "build"}
    if lock == "requirements.lock":
        extras = set(PROJECT["optional-dependencies"]) - {"all"}
    declared = [*PROJECT["dependencies"]]
    for extra in extras:
        declared += PROJECT["optional-dependencies"][extra]
    missing = {plain(line) for line in declared} - {plain(name) for name in entries(lock)}
    assert not missing


@pytest.mark.parametrize(("lock", "spark"), [*zip(LOCKS, ["4.2.", "3.5."], strict=True)])
def test_each_lock_has_its_spark(lock: str, spark: str):
    assert any(name.startswith(f"pyspark=={spark}") for name in entries(lock))


def test_all_means_every_extra_of_use():
    [line] = PROJECT["optional-dependencies"]["all"]
    inside = set(re.fullmatch(r"clinloom\[(.+)\]", line)[1].split(","))
    ours = {"all", "test", "judges", "browser", "docs", "bench", "build"}
    assert inside == set(PROJECT["optional-dependencies"]) - ours


@pytest.mark.skipif(find_spec("hatchling") is None, reason="the build back end is not installed")
def test_the_wheel_holds_the_whole_package(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--no-cache-dir"]
    subprocess.run([*command, "-w", str(tmp_path), str(source)], check=True)
    [wheel] = tmp_path.glob("clinloom-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        [points] = [name for name in held if name.endswith("entry_points.txt")]
        assert "clinloom = clinloom.cli:main" in archive.read(points).decode()
    there = {
        path.relative_to(source / "src").as_posix()
        for path in (source / "src" / "clinloom").rglob("*")
        if path.is_file()
    }
    assert there <= held
    assert any(name.endswith("licenses/LICENSE") for name in held)


SCRIPTS = [
    "script/setup",
    "script/demo",
    "script/test",
    "script/lock",
    "script/fresh",
    "script/docs",
    ".ci/run",
]


def test_hooks_before_a_commit_are_our_own_programs():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "mypy", "architecture"}
    for hook in hooks:
        assert hook["language"] == "system" and hook["entry"].startswith(".venv/bin/")
        assert "additional_dependencies" not in hook


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_runnable_and_parse(script: str):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def programs(folder: Path, *, offered: str, sudo: bool) -> Path:
    """A path whose system has neither Python nor Java; apt-get and sudo write down their calls."""
    folder.mkdir()
    for name in ("bash", "dirname", "awk", "grep", "cat", "env", "sha256sum", "cut"):
        (folder / name).symlink_to(shutil.which(name))
    log = folder / "log"
    stubs = {
        "id": "echo 1000",
        "sudo": f'{"" if sudo else "exit 1;"} shift; [ "$1" = true ] || "$@"',
        "apt-get": f'echo "$*" >>{log}',
        "apt-cache": f'[ "$2" = {offered} ] && echo "  Candidate: 1.0"; true',
    }
    for name, body in stubs.items():
        (folder / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


def bare_clone(tmp_path: Path) -> Path:
    """The scripts and locks alone, as on a fresh machine. The path of last resort is taken away."""
    clone = tmp_path / "clone"
    (clone / "script").mkdir(parents=True)
    for name in (*LOCKS, "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    text = (ROOT / "script" / "setup").read_text().replace(" /usr/bin/python3}", "}")
    (clone / "script" / "setup").write_text(text)
    return clone


def with_python_and_java(path: Path, *, blas: bool) -> dict[str, str]:
    """A Python that makes no environment, a Java of 17, and an OpenBLAS that loads or does not."""
    python = f'case "$*" in *CDLL*) exit {0 if blas else 1};; *ensurepip*) exit 0;; esac; exit 7'
    java = "echo 'openjdk version \"17.0.15\"' >&2"
    for name, body in {"python": python, "java": java}.items():
        (path / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
        (path / name).chmod(0o755)
    return {"PYTHON": str(path / "python")}


def set_up(clone: Path, path: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [shutil.which("bash"), str(clone / "script" / "setup"), *arguments],
        env={"PATH": str(path), "HOME": "/nonexistent", **more},
        capture_output=True,
        text=True,
        check=False,
    )


def test_setup_without_root_prints_the_command_to_type(tmp_path):
    path = programs(tmp_path / "bin", offered="none", sudo=False)
    done = set_up(bare_clone(tmp_path), path)
    assert done.returncode == 1 and not (path / "log").exists()
    assert "python3-venv openjdk-17-jre-headless" in done.stderr


@pytest.mark.parametrize("java", ["openjdk-17-jre-headless", "openjdk-21-jre-headless"])
def test_setup_installs_the_java_that_the_system_offers(tmp_path, java: str):
    path = programs(tmp_path / "bin", offered=java, sudo=True)
    done = set_up(bare_clone(tmp_path), path)
    [call] = (path / "log").read_text().splitlines()  # the lists are there: no update
    assert call.endswith(f"python3 python3-venv {java}") and "--no-install-recommends" in call
    assert "--no-upgrade" in call  # a Java that others run stays as it is
    assert done.returncode == 1 and "older than 3.11" in done.stderr  # the stub installs nothing


def test_setup_fetches_the_lists_where_there_are_none(tmp_path):
    path = programs(tmp_path / "bin", offered="none", sudo=True)
    set_up(bare_clone(tmp_path), path)
    assert (path / "log").read_text().startswith("update")


def test_setup_tells_a_missing_python_for_spark_35_apart(tmp_path):
    path = programs(tmp_path / "bin", offered="none", sudo=True)
    assert set_up(bare_clone(tmp_path), path, "spark35").returncode == 3


def test_setup_installs_nothing_where_java_home_is_wrong(tmp_path):
    path = programs(tmp_path / "bin", offered="openjdk-17-jre-headless", sudo=True)
    done = set_up(bare_clone(tmp_path), path, PYTHON=sys.executable, JAVA_HOME="/nonexistent")
    assert done.returncode == 1 and "JAVA_HOME=/nonexistent" in done.stderr
    assert not (path / "log").exists()


def test_setup_installs_openblas_where_java_is_there_already(tmp_path):
    path = programs(tmp_path / "bin", offered="libopenblas0", sudo=True)
    set_up(bare_clone(tmp_path), path, **with_python_and_java(path, blas=False))
    [call] = (path / "log").read_text().splitlines()
    assert call.endswith("libopenblas0") and "--no-upgrade" in call


def test_setup_installs_nothing_where_nothing_is_missing(tmp_path):
    path = programs(tmp_path / "bin", offered="libopenblas0", sudo=True)
    set_up(bare_clone(tmp_path), path, **with_python_and_java(path, blas=True))
    assert not (path / "log").exists()


@pytest.mark.parametrize(("offered", "sudo"), [("libopenblas0", False), ("none", True)])
def test_setup_goes_on_without_openblas(tmp_path, offered: str, sudo: bool):
    path = programs(tmp_path / "bin", offered=offered, sudo=sudo)
    done = set_up(bare_clone(tmp_path), path, **with_python_and_java(path, blas=False))
    assert "apt-get install -y libopenblas0" in done.stderr
    assert "making .venv" in done.stderr and done.returncode == 7  # the stub's own end


def test_setup_for_clusters_installs_what_is_offered_and_tells_the_rest(tmp_path):
    path = programs(tmp_path / "bin", offered="maven", sudo=True)
    done = set_up(bare_clone(tmp_path), path, "cluster")
    calls = (path / "log").read_text().splitlines()
    assert [call.split()[-1] for call in calls if call.startswith("install")] == ["maven"]
    left_out = done.stderr.splitlines()[-1]
    assert done.returncode == 0 and "npm krb5-user" in left_out and "maven" not in left_out


def test_setup_for_clusters_without_root_is_one_line_and_no_failure(tmp_path):
    path = programs(tmp_path / "bin", offered="maven", sudo=False)
    done = set_up(bare_clone(tmp_path), path, "cluster")
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1
    assert not (path / "log").exists()


def bare_systems(clone: Path, path: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [shutil.which("bash"), str(clone / "script" / "fresh"), *arguments],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("file", "line", "changed"),
    [
        (None, "", False),
        ("script/setup", "# more", True),
        ("script/test", "# more", True),
        (".ci/run", "# more", True),
        ("requirements.lock", "# more", True),
        ("pyproject.toml", '[project.urls]\nHome = "x"', True),
        ("pyproject.toml", "[tool.other]\nsetting = 1", False),
    ],
)
def test_bare_systems_are_tried_again_where_the_setup_changed(tmp_path, file, line, changed):
    path = programs(tmp_path / "bin", offered="none", sudo=False)
    clone = bare_clone(tmp_path)
    (clone / ".ci").mkdir()
    for name in ("script/test", "script/demo", "script/fresh", ".ci/run"):
        shutil.copy(ROOT / name, clone / name)
    [function] = re.findall(r"^sum\(\) \{.*?^\}", (clone / "script/fresh").read_text(), re.M | re.S)
    command = [shutil.which("bash"), "-c", f"{function}\nsum >script/fresh.sum"]
    subprocess.run(command, cwd=clone, env={"PATH": str(path)}, check=True)
    if file is not None:
        with (clone / file).open("a") as text:
            text.write(f"\n{line}\n")
    done = bare_systems(clone, path, "--if-changed")
    if changed:
        assert done.returncode == 1 and "needs root" in done.stderr  # it would have begun
    else:
        assert done.returncode == 0 and "has passed" in done.stdout
    assert bare_systems(clone, path).returncode == 1  # asked by hand, it always begins
