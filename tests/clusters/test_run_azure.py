"""Sources, output and bundle on Azure, by a local Spark that has no connector to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.clusters.buckets import Azure
from tests.clusters.daemons import own_environment
from tests.clusters.sparks import TREE
from tests.hospital import STUDY, clinloom, killed, places, progress, sets, small

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# A service: it opens the bundle by its address, and no module of Spark.
ASKED = """
import json, sys
import pyarrow.compute as pc
import clinloom
from clinloom.store import finished
from clinloom.tables import matrix

tables = finished(sys.argv[1])
known = tables["dataset"].read().slice(0, 40)
events = tables["events"].read()
events = events.filter(pc.is_in(events["subject_id"], known["subject_id"].combine_chunks()))
bundle = clinloom.load_bundle(sys.argv[1] + "/bundle")
found, risks = bundle.predict(events), bundle.scorer.score(matrix(known)).tolist()
assert not [name for name in sys.modules if name.startswith("pyspark")]
risk = "predicted_boolean_probability"
told = dict(zip(found["subject_id"].to_pylist(), found[risk].to_pylist()))
rows = [(told[who], of) for who, of in zip(known["subject_id"].to_pylist(), risks)]
print(json.dumps(rows))
"""


def test_sources_output_and_bundle_on_azure(hospital: Path, local: Path, azure_server: Azure):
    from azure.storage.blob import BlobServiceClient  # not in the environment of Spark 3.5

    root = azure_server.container("hospital")
    name = root.removeprefix("abfs://").partition("@")[0]
    with BlobServiceClient.from_connection_string(azure_server.connection) as service:
        container = service.get_container_client(name)
        for file in hospital.rglob("*"):
            if file.is_file():
                container.upload_blob(f"data/{file.relative_to(hospital)}", file.read_bytes())
        run = ["run", STUDY, "--out", f"{root}/out", *sets(small(f"{root}/data"))]
        env = {"CLINLOOM_SPARK_MEMORY": "1g", **azure_server.env}
        killed(*run, after="clean", **env)  # and goes on as on a disk
        done = clinloom(*run, "--json", **env)
        assert [line["stage"] for line in progress(done.stderr) if line["reused"]][:2] == [
            "acquire",
            "clean",
        ]
        metrics = json.loads(container.download_blob("out/metrics.json").readall())
        assert metrics == json.loads((local / "metrics.json").read_bytes())

        scores = ["score", f"{root}/out/bundle", "--out", f"{root}/scores/risk.parquet", "--json"]
        scored = clinloom(*scores, *sets(places(f"{root}/data")), **env)
        assert json.loads(scored.stdout)["rows"] > 200
        scores, trail = sorted(b.name for b in container.list_blobs("scores/"))
        assert scores == "scores/risk.parquet" and trail.startswith(f"{scores}.audit/")

        page = container.download_blob("out/report.html").readall()
        container.delete_blob("out/report.html")
        clinloom("report", f"{root}/out", **azure_server.env)
        assert container.download_blob("out/report.html").readall() == page

        models = [b.name for b in container.list_blobs("out/bundle/")]
        assert any("/metadata/part-" in blob for blob in models)  # the PipelineModel is there too

    env = own_environment(PYTHONPATH=TREE, **azure_server.env)
    command = [sys.executable, "-c", ASKED, f"{root}/out"]
    asked = subprocess.run(command, capture_output=True, text=True, env=env)
    assert asked.returncode == 0, asked.stderr[-3000:]
    rows = json.loads(asked.stdout)
    assert len(rows) == 40 and all(abs(one - other) < 1e-9 for one, other in rows)
