"""Every platform keeps the room's contract, and a new one is one module and nothing else."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

import pytest

from clinloom import doctor, platforms, plugins, study
from clinloom.checks import Check
from clinloom.errors import StudyError, UsageError
from clinloom.files import address
from clinloom.platforms import Outcome, Site, Task

NAMES = plugins.choices("platforms")
CLUSTERS = [name for name in NAMES if name != "local"]
FOREIGN = ("HADOOP_", "YARN_", "SPARK_", "CLINLOOM_SPARK_")
STUDY = {
    "name": "tiny",
    "sources": {"ehr": {"type": "fhir", "path": "/data/fhir"}},
    "cohort": {"index": {"at": "A"}, "outcome": {"codes": "B", "within": "30d"}},
    "features": ["demographics"],
    "models": ["logistic_regression"],
}


@pytest.fixture
def bare(monkeypatch):
    """An environment that names no cluster."""
    import os

    for name in list(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_platform_has_options_a_session_a_way_to_submit_and_checks(name: str):
    module = platforms.load(name)
    assert module.REQUIRES is None or module.REQUIRES in doctor.EXTRAS
    assert module.Options() is not None  # `--on NAME` alone is enough
    assert list(inspect.signature(module.session).parameters) == ["options"]
    assert list(inspect.signature(module.submit).parameters) == ["task", "options", "note"]
    assert list(inspect.signature(module.checks).parameters) == ["options"]
    fields = module.Options.model_json_schema()["properties"].values()
    assert all(field.get("description") for field in fields)


@pytest.mark.parametrize("name", NAMES)
def test_checks_say_what_mends_what_is_missing(name: str, bare):
    module = platforms.load(name)
    found = list(module.checks(module.Options()))
    assert found and all(isinstance(check, Check) and check.detail for check in found)
    assert all(check.mend for check in found if not check.ok)
    if name in CLUSTERS:
        assert not doctor.healthy(found)


@pytest.mark.parametrize("name", CLUSTERS)
def test_nothing_starts_where_no_cluster_is_named(name: str, bare):
    module = platforms.load(name)
    with pytest.raises(UsageError) as caught:
        module.submit(Task(("run", "x")), module.Options(), note=print)
    assert caught.value.exit_code == 2 and caught.value.mend


@pytest.mark.parametrize("name", NAMES)
def test_a_study_names_a_platform_and_its_results_do_not(name: str):
    plain = study.parse(STUDY, rooms=plugins)
    named = study.parse({**STUDY, "platform": {name: None}}, rooms=plugins)
    assert set(named.platform) == {name} and named.hash == plain.hash
    assert named.portable() == plain.portable()
    assert study.parse(named.resolved(), rooms=plugins) == named


def test_another_package_offers_a_platform_by_an_entry_point(monkeypatch):
    module = ModuleType("elsewhere_mainframe", "A mainframe.")
    exec(  # noqa: S102 - a package that is not installed here
        "from clinloom.platforms import Outcome\n"
        "from clinloom.study import Model\n"
        "REQUIRES = None\n"
        "class Options(Model):\n    'Its options.'\n    region: str = 'here'\n"
        "def session(options): ...\n"
        "def submit(task, options, *, note):\n"
        "    note(options.region)\n"
        "    return Outcome(3, None)\n"
        "def checks(options): yield from ()\n",
        module.__dict__,
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    point = plugins.metadata.EntryPoint("mainframe", module.__name__, "clinloom.platforms")
    monkeypatch.setattr(plugins, "offered", lambda room: [point] if room == "platforms" else [])
    for cached in (plugins.choices, plugins.load):
        cached.cache_clear()
    try:
        document = {**STUDY, "platform": {"mainframe": {"region": "there"}}}
        site = platforms.site(None, told=study.parse(document, rooms=plugins).platform)
        assert site is not None and site.name == "mainframe"
        told: list[str] = []
        outcome = site.platform.submit(Task(("run",)), site.options, note=told.append)
        assert outcome == Outcome(3, None) and told == ["there"]
        with pytest.raises(StudyError, match="did you mean 'region'"):
            study.parse({**STUDY, "platform": {"mainframe": {"regoin": "x"}}}, rooms=plugins)
    finally:
        monkeypatch.undo()
        for cached in (plugins.choices, plugins.load):
            cached.cache_clear()


def test_the_command_line_comes_before_the_file_and_the_file_before_the_study(monkeypatch):
    for name in ("CLINLOOM_SUBMITTED", "PYSPARK_GATEWAY_PORT"):
        monkeypatch.delenv(name, raising=False)
    local, yarn = platforms.load("local"), platforms.load("yarn")
    told, file = {"yarn": yarn.Options(queue="study")}, {"local": local.Options(cores=1)}
    assert platforms.site(None, told={}) is None
    assert platforms.site(None, told=told) == Site("yarn", told["yarn"])
    assert platforms.site(None, told=told, file=file) == Site("local", file["local"])
    assert platforms.site("yarn", told=told, file=file) == Site("yarn", told["yarn"])
    assert platforms.site("connect", told=told).options == platforms.load("connect").Options()
    with pytest.raises(UsageError, match="--on NAME"):
        platforms.site(None, told={}, file={**told, **file})
    with pytest.raises(UsageError, match="did you mean 'yarn'"):
        platforms.site("yran", told={})
    monkeypatch.setenv("CLINLOOM_SUBMITTED", "1")  # it runs there already: not once more
    assert platforms.site(None, told=told) is None


def test_on_yarn_a_local_place_is_refused_unless_every_node_has_it(bare, monkeypatch, tmp_path):
    (tmp_path / "core-site.xml").write_text("<configuration/>")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    yarn = platforms.load("yarn")
    places = {
        "sources.ehr.path": address("/data/fhir"),
        "sources.cxr.path": address("/database/x"),
        "--out": address("hdfs://n/out"),
    }
    task = Task(("run", "study.yaml"), places=places)
    with pytest.raises(UsageError) as caught:
        yarn.submit(task, yarn.Options(shared=["/data"]), note=print)
    told = str(caught.value)
    assert "/database/x" in told and "/data/fhir" not in told and "hdfs:" not in told.split("→")[0]
