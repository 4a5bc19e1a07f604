"""FHIR Observations to events, beside a mapping written by hand with orjson.

    python bench/fhir.py --mb 1024 --folder /tmp/fhir
    python bench/fhir.py --whole

Both read the same files of lines, the synthetic hospital's again and again under other identifiers,
in two processes each and in turns of a few files, and give the same columns: patient, time, how
much earlier it was taken, code, number, text, unit, source and record, times and numbers read. That
they found the same is checked. Prints MB/s of both, by the clock and by the seconds of a core, the
ratios, and the peak of a process's anonymous memory. On a machine with other work only the seconds
of a core tell much. On two slow cores with nothing else to do 151 MB/s, 1.40 times the mapping
(see docs/decisions/0014).

``--clean`` leaves out lines with times that are none, for which the mapping needs a second look.
``--whole`` also runs the whole acquisition, Spark's start apart: who is who, clustered and written.
"""

from __future__ import annotations

import argparse
import datetime as dt
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from memory import anonymous, watched

ROOT = Path(__file__).parents[1]
PATIENTS = 2000  # of whom the data are made, 21 MB of Observations
TURN = 6  # files that one reads before the other does
SOURCE = "ehr"
SHORT = {"http://loinc.org": "LOINC", "http://snomed.info/sct": "SNOMED"}
FACTS = {"preliminary", "final", "amended", "corrected"}
MOMENT = pa.timestamp("us", "UTC")
Counts = dict[str, int]  # what both must agree on


def made(folder: Path, mb: int, *, clean: bool) -> list[Path]:
    """Files of Observations, ``mb`` megabytes together."""
    import numpy as np

    from clinloom.synth._population import population
    from clinloom.synth._records import Export

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(7)
    people = population(0, PATIENTS, imaged=0, generator=generator)
    lines = Export(people, seed=7, generator=generator).lines["Observation"]
    if clean:
        lines = [line for line in lines if "/20" not in line and "-02-30" not in line]
    text = ("\n".join(lines) + "\n").encode()
    files = []
    for copy in range(max(1, mb * 1_000_000 // len(text))):
        file = folder / f"Observation.{copy:04}.ndjson"
        mine = text.replace(b'"id":"o', b'"id":"o%d-' % copy)
        file.write_bytes(mine.replace(b'"Patient/', b'"Patient/%d-' % copy))
        files.append(file)
    for file in set(folder.glob("*.ndjson")) - set(files):
        file.unlink()
    return files


def ours(file: str) -> tuple[Counts, float]:
    """What the kernel finds in a file, and its seconds of a core."""
    began = time.process_time()
    from clinloom.sources import fhir

    options = fhir.Options(path=file)
    parcels = fhir.read(fhir.plan(options, "sources.ehr"), options, SOURCE)
    events = [parcel["events"] for parcel in parcels if "events" in parcel]
    took = time.process_time() - began
    return counts(events), took


def theirs(file: str) -> tuple[Counts, float]:
    """What the mapping by hand finds in a file, and its seconds of a core."""
    began = time.process_time()
    events = mapped(Path(file).read_bytes())
    took = time.process_time() - began
    return counts([events]), took


def mapped(data: bytes) -> pa.Table:
    """Observations of one coding with a quantity, a coded answer or a text, and nothing else."""
    import orjson

    patient, known, taken, code, number, text, unit, record = [], [], [], [], [], [], [], []
    names: dict[tuple[str, str], str] = {}
    for line in data.split(b"\n"):
        if not line:
            continue
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if found["resourceType"] != "Observation" or found["status"] not in FACTS:
            continue
        coding = found["code"]["coding"][0]
        key = coding["system"], coding["code"]
        name = names.get(key)
        if name is None:
            name = names[key] = f"{SHORT[key[0]]}//{key[1]}"
        quantity = found.get("valueQuantity")
        value = said = of = None
        if quantity is not None:
            value, of = quantity.get("value"), quantity.get("code") or quantity.get("unit")
            if "comparator" in quantity:
                said = f"{quantity['comparator']}{value}"
        elif "valueCodeableConcept" in found:
            answer = found["valueCodeableConcept"]["coding"][0]
            said = f"{SHORT[answer['system']]}//{answer['code']}"
        else:
            said = found.get("valueString", "")
        made = found.get("effectiveDateTime")
        patient.append(found["subject"]["reference"])
        known.append(found.get("issued") or made)
        taken.append(made)
        code.append(name)
        number.append(value)
        text.append(said)
        unit.append(of)
        record.append(f"Observation/{found['id']}")
    when = moments(known)
    return pa.table(
        {
            "patient": pa.array(patient, pa.string()).dictionary_encode(),
            "time": when,
            "code": pa.array(code, pa.string()).dictionary_encode(),
            "numeric_value": pa.array(number, pa.float64()),
            "text_value": pa.array(text, pa.string()),
            "unit": pa.array(unit, pa.string()).dictionary_encode(),
            "source": pa.array([SOURCE] * len(code), pa.string()).dictionary_encode(),
            "record_id": pa.array(record, pa.string()),
            "earlier": pc.subtract(when.cast(pa.int64()), moments(taken).cast(pa.int64())),
        }
    )


def moments(texts: list[str]) -> pa.Array:
    """Times at once, or, where one is none, one by one."""
    try:
        return pa.array(texts, pa.string()).cast(MOMENT)
    except pa.ArrowInvalid:
        return pa.array([moment(text) for text in texts], MOMENT)


def moment(text: str) -> dt.datetime | None:
    """A time, None of what is none."""
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return None


def counts(tables: list[pa.Table]) -> Counts:
    """What was found in a file."""
    found = pa.concat_tables(tables, promote_options="permissive")
    return {
        "events": found.num_rows,
        "values": pc.count(found["numeric_value"]).as_py(),
        "times": pc.count(found["time"]).as_py(),
        "last": pc.max(found["time"].cast(pa.int64())).as_py(),
        "codes": len(pc.unique(found["code"])),
        "patients": len(pc.unique(found["patient"])),
    }


class Contestant:
    """Two processes that read files through one of the kernels."""

    def __init__(self, kernel: Callable[[str], tuple[Counts, float]], warm: Path):
        before = set(multiprocessing.active_children())
        self._kernel = kernel
        self._pool = multiprocessing.get_context("spawn").Pool(2)
        self._pool.map(kernel, [str(warm)] * 8, chunksize=1)
        self._processes = set(multiprocessing.active_children()) - before
        self.seconds = self.core = self.peak = 0.0

    def run(self, files: list[Path]) -> list[Counts]:
        """Read some files."""
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(done,))
        watch.start()
        start = time.perf_counter()
        found = self._pool.map(self._kernel, map(str, files), chunksize=1)
        self.seconds += time.perf_counter() - start
        self.core += sum(took for _, took in found)
        done.set()
        watch.join()
        return [counted for counted, _ in found]

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(0.2):
            self.peak = max(self.peak, *(anonymous(p.pid or 0) for p in self._processes))


def whole(folder: Path) -> float:
    """Seconds of the whole acquisition of the folder's files."""
    from clinloom.run import api as run
    from clinloom.run.acquire import acquire
    from clinloom.run.progress import Progress
    from clinloom.run.work import Work
    from clinloom.store import Store

    study = run.read_study(
        ROOT / "examples" / "synthetic_records.yaml", overrides=[f"sources.ehr.path={folder}"]
    )
    work = Work(study, Store(str(folder.parent / "out")), progress=Progress())
    work.spark.range(1).count()
    start = time.perf_counter()
    acquire(work, work.study)
    took = time.perf_counter() - start
    work.close()
    return took


def main() -> None:
    """Make the data, let both read them in turns, print the rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--folder", type=Path, default=Path("bench-out"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--clean", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--acquire", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.folder.absolute() / "observations"
    if args.acquire:
        print(whole(folder))
        return
    files = made(folder, args.mb, clean=args.clean)
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{size:,.0f} MB in {len(files)} files, {args.rounds} rounds")
    both = {"clinloom": Contestant(ours, files[0]), "orjson": Contestant(theirs, files[0])}
    for turn in range(0, args.rounds * len(files), TURN):
        some = [files[n % len(files)] for n in range(turn, turn + TURN)]
        found = [contestant.run(some) for contestant in both.values()]
        assert found[0] == found[1], "the two disagree"
    read = TURN * size / len(files) * -(-args.rounds * len(files) // TURN)
    for name, one in both.items():
        print(f"{name:<10}{read / one.seconds:6.0f} MB/s", end="")
        print(
            f"{read / one.core:6.0f} MB/s a core  peak of a process {one.peak:.2f} GB", flush=True
        )
    us, them = both.values()
    print(f"clinloom is {them.seconds / us.seconds:.2f} times as fast as orjson by hand", end="")
    print(f", {them.core / us.core:.2f} by seconds of a core", flush=True)
    if args.whole:
        command = [sys.executable, __file__, "--acquire", "--folder", str(args.folder)]
        text, peak = watched(command, dict(os.environ))
        seconds = float(text.strip().splitlines()[-1])
        print(f"acquisition {seconds:.1f} s, {size / seconds:.0f} MB/s, peak {peak:.2f} GB")


if __name__ == "__main__":
    main()
