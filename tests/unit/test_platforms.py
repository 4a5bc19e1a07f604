"""Platforms without a cluster: what travels, what is followed, what is packed, what is read."""

from __future__ import annotations

import json
import tarfile

import pytest
import yaml

from clinloom import cli, platforms, plugins, study, tasks
from clinloom.errors import StudyError
from clinloom.files import address
from clinloom.platforms import Outcome, _archive
from clinloom.run.progress import Progress


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A study file beside its data, seen from another folder; it names YARN."""
    for name in ("CLINLOOM_SUBMITTED", "PYSPARK_GATEWAY_PORT"):
        monkeypatch.delenv(name, raising=False)
    document = {
        "name": "tiny",
        "sources": {"ehr": {"type": "fhir", "path": "fhir"}},
        "cohort": {"index": {"at": "A"}, "outcome": {"codes": "B", "within": "30d"}},
        "features": ["demographics"],
        "models": ["logistic_regression"],
        "storage": {"s3": {"secret": "file:/run/secrets/s3", "key": "env:S3_KEY"}},
        "platform": {"yarn": {"queue": "research", "shared": ["/data"]}},
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.fixture
def submitted(monkeypatch):
    """What the command line hands to YARN, in place of YARN."""
    held = []

    def submit(task, options, *, note):
        held.append((task, options))
        note('{"stage": "acquire", "rows": 5, "seconds": 1.0, "reused": false}')
        return Outcome(2 if len(held) > 1 else 0, task.report)

    monkeypatch.setattr(platforms.load("yarn"), "submit", submit)
    return held


def test_a_run_travels_with_its_study_resolved_and_its_exit_code_comes_back(
    written, submitted, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir("/")
    command = ["run", str(written), "--out", "s3a://bucket/out", "--set", "seed=9"]
    assert cli.main(command) == 0
    task, options = submitted[0]
    assert task.command == ("run", "study.yaml", "--out", "s3://bucket/out")
    assert options.queue == "research"
    resolved = yaml.safe_load(task.files["study.yaml"])
    assert resolved["sources"]["ehr"]["path"] == str(tmp_path / "fhir") and resolved["seed"] == 9
    assert "platform" not in resolved
    assert resolved["storage"]["s3"] == {"secret": "file:/run/secrets/s3", "key": "env:S3_KEY"}
    assert task.places == {
        "sources.ehr.path": address(tmp_path / "fhir"),
        "storage.s3.secret": address("/run/secrets/s3"),
        "--out": address("s3://bucket/out"),
    }
    assert task.report == "s3://bucket/out/report.html"
    assert "acquire" in capsys.readouterr().err
    assert cli.main([*command, "--on", "yarn", "--quiet"]) == 2
    assert submitted[1][0].command[-1] == "--quiet"


def test_a_score_and_a_demo_travel_with_their_places_absolute(submitted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "site.yaml"
    site.write_text("platform: {yarn: {cores: 1}}\nstorage: {s3: {key: 'env:S3_KEY'}}")
    more = ["--platform", str(site)]
    bundle = ["score", "s3://bucket/out/bundle", "--out", "risk.parquet"]
    assert cli.main([*bundle, "--set", "sources.ehr.path=new", *more]) == 0
    task, options = submitted[0]
    assert options.cores == 1
    assert task.command == (
        *("score", "s3://bucket/out/bundle", "--out", str(tmp_path / "risk.parquet")),
        *("--set", 'storage.s3={"key": "env:S3_KEY"}'),
        *("--set", f'sources.ehr.path="{tmp_path / "new"}"'),
    )
    assert task.places["sources.ehr.path"] == tmp_path.joinpath("new").as_posix()
    assert cli.main(["demo", "--out", "hdfs:///d", "--patients", "40", *more]) == 2
    assert submitted[1][0].command[:7] == (
        *("demo", "--out", "hdfs:///d", "--patients", "40", "--seed", "7"),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("platform: {yran: {}}", "did you mean 'yarn'"),
        ("platform: {yarn: {quue: x}}", "did you mean 'queue'"),
        ("platform: {yarn: {}, local: {}}", "not several"),
        ("platform: {yarn: {principal: a}}", "go together"),
        ("platform: {connect: {url: 'sc://h:1/;token=abc'}}", "named, never written"),
        ("platform: {connect: {token: abc}}", "platform.connect.token"),
        ("storage: {s4: {}}", "did you mean 's3'"),
        ("storage: {s3: {secert: 'env:X'}}", "did you mean 'secret'"),
        ("storage: {s3: {secret: canary}}", "a secret is named, never written"),
        ("storage: {s3: 5}", "is a mapping of options"),
    ],
)
def test_what_is_wrong_with_a_platform_or_storage_is_a_fault_of_the_study(
    written, text: str, told: str
):
    document = {**yaml.safe_load(written.read_text()), **yaml.safe_load(text)}
    written.write_text(yaml.safe_dump(document))
    with pytest.raises(StudyError) as caught:
        study.read(written, rooms=plugins)
    assert told in str(caught.value) and "line " in str(caught.value)
    assert "canary" not in str(caught.value) and "abc" not in str(caught.value)


def test_every_fault_of_a_storage_is_told_at_once(written):
    storage = {"s3": {"secret": "clear", "kye": 1}, "gss": {"token": "x"}}
    document = {**yaml.safe_load(written.read_text()), "storage": storage}
    written.write_text(yaml.safe_dump(document))
    with pytest.raises(StudyError) as caught:
        study.read(written, rooms=plugins)
    assert len(caught.value.faults) == 3


def test_a_platform_file_may_describe_several_and_nothing_else(tmp_path):
    file = tmp_path / "site.yaml"
    file.write_text("platform:\n  yarn: {keytab: my.keytab, principal: me}\n  local:\n")
    found, storage = platforms.described(str(file))
    assert set(found) == {"yarn", "local"} and not storage
    assert found["yarn"].keytab == str(tmp_path / "my.keytab")  # beside the file
    file.write_text("plattform: {}")
    with pytest.raises(StudyError, match="platform file"):
        platforms.described(str(file))


def test_a_command_elsewhere_tells_as_one_here(written, submitted, tmp_path, monkeypatch, capsys):
    """Its result alone on stdout, its fault on stderr, however quiet the progress is."""
    yarn, made = platforms.load("yarn"), {"predictions": "s3://bucket/risk", "rows": 3}
    endings = [Outcome(0, None, False, result=made), Outcome(1, None, False, fault="a: b\n  → c")]
    monkeypatch.setattr(yarn, "submit", lambda task, options, *, note: endings.pop(0))
    score = ["score", "s3://bucket/out/bundle", "--out", "s3://bucket/risk", "--on", "yarn"]
    assert cli.main([*score, "--json"]) == 0
    found = capsys.readouterr()
    assert json.loads(found.out) == made and not found.err
    assert cli.main([*score, "--quiet"]) == 1
    assert capsys.readouterr() == ("", "clinloom: a: b\n  → c\n")


def test_what_another_progress_wrote_is_told_as_ours(capsys):
    progress = Progress(form="json")
    stage = '{"stage": "acquire", "rows": 1, "seconds": 1.0, "reused": false}'
    for line in (stage, '{"note": "x"}', "plain", "{broken"):
        progress.relay(line)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [t.get("stage", t.get("note")) for t in told] == ["acquire", "x", "plain", "{broken"]


def test_what_travels_is_what_clinloom_needs_and_its_own_code(tmp_path):
    names = {d.metadata["Name"].lower() for d in _archive.distributions()}
    assert {"numpy", "pyarrow", "pydantic"} <= names
    assert not names & {"pyspark", "pytest", "ruff", "clinloom"}
    with tarfile.open(_archive.source(tmp_path)) as archive:
        inside = archive.getnames()
    assert {"clinloom/cli.py", "clinloom/synth/study.yaml"} <= set(inside)
    assert not [name for name in inside if "__pycache__" in name]


def test_an_unknown_scheme_is_a_fault_and_makes_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example = "examples/synthetic.yaml"
    from tests.conftest import ROOT

    for command in (
        ["run", str(ROOT / example), "--out", "foo://x"],
        ["demo", "--out", "foo://x"],
        ["score", "foo://x/bundle", "--out", "risk.parquet"],
        ["score", str(tmp_path), "--out", "foo://x"],
        ["report", "foo://x"],
        ["sweep", "foo://x"],
        ["synth", "foo://x"],
        ["validate", "foo://x"],
        ["doctor", "--storage", "foo://x"],
    ):
        assert cli.main(command) == 2, command
        assert "'foo:' is not a storage" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_does_not_answer_is_told_in_a_line(monkeypatch, capsys):
    from clinloom import files

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("TEST_KEY", "TEST_SECRET"):
        monkeypatch.setenv(name, "canary")
    refused = {"endpoint_url": "http://127.0.0.1:9", "key": "env:TEST_KEY"}
    files.use({"s3": {**refused, "secret": "env:TEST_SECRET"}})
    try:
        assert cli.main(["report", "s3://bucket/out"]) == 1
    finally:
        files.use({})
    told = capsys.readouterr().err
    assert told.startswith("clinloom: s3://bucket/out") and "unexpected" not in told
    assert "doctor --storage" in told and "canary" not in told


def test_validate_notes_a_library_that_a_plug_in_lacks(written, monkeypatch, capsys):
    monkeypatch.setattr(plugins, "needed", lambda room, name: {"pydicom": None})
    monkeypatch.setattr(plugins.load("sources", "fhir"), "REQUIRES", "dicom", raising=False)
    assert cli.main(["validate", str(written)]) == 0
    told = capsys.readouterr().out
    assert "sources 'fhir' needs pydicom" in told and "pip install 'clinloom[dicom]'" in told


def test_a_task_is_the_same_wherever_one_stands(written, monkeypatch, tmp_path):
    args = cli.parser().parse_args(["run", str(written), "--out", str(tmp_path / "o")])
    made = []
    for folder in ("/", str(tmp_path)):
        monkeypatch.chdir(folder)
        made.append(tasks.of_run(args, study.read(written, rooms=plugins)))
    assert made[0] == made[1]
