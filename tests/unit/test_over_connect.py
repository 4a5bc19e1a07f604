"""A model that Spark Connect cannot fit is refused before anything is read."""

from __future__ import annotations

import pytest

from clinloom import plugins, study
from clinloom.errors import UsageError
from clinloom.run import api
from clinloom.spark.session import remote

pytest.importorskip("xgboost")


SOURCE = {
    "type": "table",
    "path": ".",
    "patient": "p",
    "code": {"column": "c"},
    "time": {"static": True},
}


def asked(models, **more):
    return study.parse(
        {
            "name": "asked",
            "sources": {"t": SOURCE},
            "cohort": {"index": {"at": "STAY"}, "outcome": {"codes": "DEATH", "within": "30d"}},
            "features": {"measurements": None},
            "models": models,
            **more,
        },
        rooms=plugins,
    )


class Classic:
    """A session as pyspark.sql has it, by its module's name."""


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No session is active, and none is asked for."""
    monkeypatch.delenv("CLINLOOM_SPARK_REMOTE", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "pyspark.sql", None)


@pytest.mark.parametrize("told", ["the study", "the environment"])
def test_xgboost_over_connect_is_refused_by_the_run_and_by_validate(monkeypatch, told):
    if told == "the environment":
        monkeypatch.setenv("CLINLOOM_SPARK_REMOTE", "sc://host")
    more = {"platform": {"connect": {}}} if told == "the study" else {}
    with pytest.raises(UsageError, match="xgboost.*Spark Connect") as error:
        api.check(asked(["logistic_regression", "xgboost"], **more))
    assert error.value.where == "models.xgboost"
    [note] = api.lacking(asked(["xgboost"], **more))
    assert "Spark Connect" in note and "another platform" in note
    assert api.lacking(asked(["gradient_boosting", "linear_svm"], **more)) == []


def test_xgboost_runs_in_a_session_of_this_process():
    api.check(asked(["xgboost"]))
    assert not remote(Classic()) and api.lacking(asked(["xgboost"])) == []


def test_the_session_that_is_given_decides(monkeypatch):
    monkeypatch.setenv("CLINLOOM_SPARK_REMOTE", "sc://host")
    api.check(asked(["xgboost"]), Classic())
    monkeypatch.setattr(Classic, "__module__", "pyspark.sql.connect.session")
    assert remote(Classic())
