"""A synthetic hospital's records and the whole run on them: seconds, rate and memory as it grows.

    python bench/hospital.py --patients 100000 1000000 --folder /tmp/hospital

Memory is flat where ten times the patients do not ask for ten times the memory, and time is linear
where a million patients cost the same of either.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

from memory import parts, watched

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Make each hospital, run the study on it, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, default=Path("bench-out"))
    parser.add_argument("--models", default="{logistic_regression: {}}")
    parser.add_argument("--heap", default="1g", help="of the JVM, tasks included")
    args = parser.parse_args()
    command = [sys.executable, "-m", "clinloom"]
    for patients in args.patients:
        data, out = args.folder / f"data-{patients}", args.folder / f"out-{patients}"
        for folder in (data, out):
            shutil.rmtree(folder, ignore_errors=True)
        start = time.monotonic()
        options = ["--patients", str(patients), "--no-images", "--json"]
        _, made_gb = watched([*command, "synth", str(data), *options], dict(os.environ))
        made = time.monotonic() - start
        study = str(ROOT / "examples" / "synthetic_records.yaml")
        changes = ["--set", f"sources.ehr.path={data / 'fhir'}", "--set", f"models={args.models}"]
        start = time.monotonic()
        env = {**os.environ, "CLINLOOM_SPARK_MEMORY": args.heap}
        peak = parts([*command, "run", study, "--out", str(out), *changes], env)
        ran = time.monotonic() - start
        stages = json.loads((out / "manifest.json").read_text())["stages"]
        events = stages["acquire"]["tables"]["acquired"]["rows"]
        slowest = ", ".join(f"{name} {stage['seconds']:.0f} s" for name, stage in stages.items())
        print(f"{patients:,} patients: synth {made:.0f} s, peak {made_gb:.2f} GB")
        rate = f"{ran / patients * 1e6:.0f} s a million patients"
        print(f"  run {ran:.0f} s on {events:,} events, {rate} ({slowest})")
        told = ", ".join(f"{name} {gb:.2f}" for name, gb in peak.items())
        print(f"  peak GB: {told}", flush=True)


if __name__ == "__main__":
    main()
