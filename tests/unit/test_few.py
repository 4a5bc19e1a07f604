"""Of a handful of test rows no number leaves: not in metrics, nor in what a run answers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from clinloom.evaluate import METRICS, Judged
from clinloom.learn.risks import Risks
from clinloom.run import api, judge
from clinloom.study import Evaluate


@pytest.mark.parametrize(("having", "told"), [(3, False), (30, True)])
def test_metrics_of_a_handful_are_withheld(monkeypatch, having, told):
    label = np.arange(100) < having
    judged = Judged.of(Risks.of(label, np.linspace(0.1, 0.9, 100)).compact(), 0.5)
    values = pa.array([[0.7] * len(METRICS)] * 21)
    rows = pa.table({"model": [0] * 21, "replicate": range(21), "values": values})
    monkeypatch.setattr(judge.workers, "tasks", lambda *_, **__: {"drawn": rows})
    monkeypatch.setattr(judge, "cores", lambda _: 1)

    class Work:
        spark = None

    class Study:
        evaluate, seed = Evaluate(bootstrap=20), 0

    class Risky:
        def files(self):
            return []

    found = judge._replicated(Work, Risky(), {"m": judged}, Study)["m"]
    assert (found["recall"]["value"] is not None) == told and set(found) == set(METRICS)
    assert api._said(found["auroc"]).startswith("0.700 (" if told else "not told: too few")
