"""The peer of ``bench/service.py``: a boosted model, fitted by Spark, for MLflow to serve.

    PYTHONPATH=src:. PYTHON_WITH_MLFLOW bench/mlflow_peer.py FOLDER

Writes ``FOLDER/model`` (MLflow's Spark flavour), ``FOLDER/row.json`` (a patient's prepared
features, as ``/invocations`` takes them) and ``FOLDER/scorer.npz``, the same model for Clinloom.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow.spark
import numpy as np
from pyspark.ml import Pipeline
from pyspark.ml.classification import GBTClassifier
from pyspark.ml.feature import VectorAssembler
from tests.service import made

from clinloom.deploy.scorer import Scorer, parity
from clinloom.learn import preparation, training
from clinloom.spark.session import session

ROWS, TREES = 400, 20


def main() -> None:
    """Fit, hold both against each other, and write them."""
    folder, spark = Path(sys.argv[1]), session(master="local[2]")
    values = made.values(ROWS)
    statistics = preparation.learn(values, lower=0.01, upper=0.99)
    x = preparation.prepare(values, statistics)
    names = [f"x{n}" for n in range(x.shape[1])]
    label = (np.nansum(values, axis=1) > np.median(np.nansum(values, axis=1))).astype(float)
    rows = [[float(v) for v in row] + [float(y)] for row, y in zip(x, label, strict=True)]
    frame = spark.createDataFrame(rows, [*names, "label"]).coalesce(1).cache()
    stages = [VectorAssembler(inputCols=names, outputCol="features")]
    stages.append(GBTClassifier(maxIter=TREES, maxDepth=3, seed=1))
    model = Pipeline(stages=stages).fit(frame)
    arrays = training.flattened("gradient_boosting", model.stages[-1], folder.as_uri())
    scorer = Scorer("gradient_boosting", statistics, arrays, 1.0, 0.0, 0.5)
    told = model.transform(frame).select("probability").collect()
    print(f"largest difference {parity(scorer, values, np.array([p[0][1] for p in told])):.1e}")
    mlflow.spark.save_model(model, str(folder / "model"))
    (folder / "scorer.npz").write_bytes(scorer.dump())
    split = {"columns": names, "data": [rows[0][:-1]]}
    (folder / "row.json").write_text(json.dumps({"dataframe_split": split}))
    spark.stop()


if __name__ == "__main__":
    main()
