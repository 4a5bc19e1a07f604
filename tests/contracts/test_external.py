"""External validation on Spark: the run's own cohort, and the batch's risks, to the last digit."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.hospital import places

from clinloom import evaluate
from clinloom.run import api


def test_the_hospital_of_the_run_validates_to_the_batchs_numbers(
    spark, hospital, finished, scored, tmp_path
):
    out = tmp_path / "external"
    asked = {"overrides": places(hospital), "recalibrate": True, "spark": spark}
    said = api.validate_external(finished / "bundle", out=out, **asked)
    told = json.loads((out / "external.json").read_text())
    index = api.Run(finished).table("index").read()
    risks = pq.read_table(scored)
    risk = dict(
        zip(
            zip(risks["subject_id"].to_pylist(), risks["prediction_time"].to_pylist(), strict=True),
            risks["predicted_boolean_probability"].to_pylist(),
            strict=True,
        )
    )
    keys = zip(index["subject_id"].to_pylist(), index["prediction_time"].to_pylist(), strict=True)
    batch = np.array([risk[key] for key in keys])
    label = index["boolean_value"].to_numpy(zero_copy_only=False)
    subject = index["subject_id"].to_numpy()
    assert told["moments"] == index.num_rows and told["outcomes"] == label.sum()
    threshold, replicates = told["threshold"], 50
    expected = evaluate.evaluate(
        label,
        batch,
        subject,
        threshold=threshold,
        replicates=replicates,
        seed=told["study"]["seed"],
    )
    for name, one in told["metrics"].items():
        assert one["here"] == pytest.approx(expected[name], abs=1e-9), name
    assert told["leaning"]["absent"] == 0 and told["codes"]["new"] == 0
    assert all(
        abs(row["difference"]) < 0.3
        for row in told["characteristics"]
        if row["difference"] is not None
    )
    assert said["report"] == str(out / "report.html") and (out / "report.html").stat().st_size > 1e4
    assert not list(tmp_path.glob(".scoring*"))
