"""A stream's steps: events a second and the seconds of a step, as what is kept grows.

    PYTHONPATH=src:. python bench/stream.py [--patients 400] [--steps 6]

Each step brings one file with the records of new patients, and one more of patients who are known.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from tests.service import made

from clinloom.run import api
from clinloom.run.progress import Progress
from clinloom.spark.session import session


class Seconds(Progress):
    """Keeps what each step took."""

    def __init__(self) -> None:
        super().__init__(form="quiet")
        self.took: list[float] = []

    def done(self, stage: str, *, rows: int | None, seconds: float, reused: bool) -> None:
        """A step ended."""
        self.took.append(seconds)


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=400, help="new ones of a step")
    parser.add_argument("--steps", type=int, default=6)
    asked = parser.parse_args()
    spark = session(master="local[2]")
    with tempfile.TemporaryDirectory() as folder:
        bundle, incoming = made.publish(Path(folder) / "bundle"), Path(folder) / "in"
        incoming.mkdir()
        for step in range(asked.steps):
            begin = time.perf_counter()
            few = 20 if step % 2 else asked.patients
            first = 0 if step % 2 else step * asked.patients
            lines = [
                json.dumps(entry["resource"] | {"id": f"{entry['resource']['id']}-{step}"})
                if entry["resource"]["resourceType"] == "Observation"
                else json.dumps(entry["resource"])
                for number in range(first, first + few)
                for entry in made.patient(number, observations=200)["entry"]
            ]
            (incoming / f"{step}.ndjson").write_text("\n".join(lines))
            told, progress = {"told": [f"ehr={incoming}"], "once": True}, Seconds()
            begin = time.perf_counter()
            api.stream(bundle, out=Path(folder) / "out", **told, progress=progress, spark=spark)
            whole, [took] = time.perf_counter() - begin, progress.took
            print(
                f"step {step + 1}: {few} patients, {len(lines):,} records in {took:.2f} s,"
                f" {len(lines) / took:,.0f} a second; with start and end {whole:.2f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
