"""Of a handful of test rows no number leaves: not in metrics, nor in what a run answers."""

from __future__ import annotations

import numpy as np
import pytest

from clinloom.evaluate import METRICS, Judged, replicated
from clinloom.learn.risks import Risks
from clinloom.run import api, judge
from clinloom.study import Evaluate


@pytest.mark.parametrize(("having", "told"), [(3, False), (30, True)])
def test_metrics_of_a_handful_are_withheld(having, told):
    class Study:
        evaluate = Evaluate()

    label, risk = np.arange(100) < having, np.linspace(0.1, 0.9, 100)
    judged = Judged.of(Risks.of(label, risk).compact(), 0.5, judge.asked(Study))
    drawn = replicated([(np.arange(100), label, risk[:, None])], [judged], range(21), seed=0)[0]
    drawn[:, METRICS.index("auroc")] = 0.7
    made = judge._told(judged, drawn, 0.95)
    found = made["test"]
    assert (found["recall"]["value"] is not None) == told and set(found) == set(METRICS)
    assert api._said(found["auroc"]).startswith("0.700 (" if told else "not told: too few")
    assert [one["at"] for one in made["points"]] == ([0.05, 0.1, 0.2, 0.3, 0.5, 0.1, 0.8] * told)
    hidden = [one for one in made["points"] if one.get("hidden")]
    assert all(one["precision"]["value"] is None for one in hidden)
    few = [np.sum(risk >= one["at"]) for one in made["points"][:5]]
    assert len(hidden) == sum(0 < n < 5 or 0 < 100 - n < 5 for n in few) * told
