"""A synthetic hospital export whose risk is known: FHIR records, radiographs, and the truth.

Patients come in chunks of 500, each with a random stream of its own, made by Spark's workers; so
the same seed gives the same bytes, whatever the number of cores, and memory does not grow. A
hospital of one chunk needs no Spark.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from clinloom import files
from clinloom.errors import MissingDependency, UsageError
from clinloom.files import Address
from clinloom.spark import workers
from clinloom.synth import _radiographs, _risk
from clinloom.synth._population import Population, population
from clinloom.synth._records import TYPES, Export, record_number, text, uid

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["CHUNK", "synthesise"]

CHUNK = 500  # patients of one random stream
FILES = 64  # at most as many files of a resource type
IMAGED = 0.3  # the share of patients with a radiograph, unless told
BROKEN = 0.02  # truncated files, and as many without pixels, a radiograph
MADE = ("fhir", "dicom", "truth.json")
MAKING = ".making"  # what workers hand on; it is there until the hospital is whole


def synthesise(
    spark: SparkSession | None,
    directory: str | os.PathLike[str],
    *,
    patients: int,
    seed: int,
    images: bool | int = True,
    log: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write ``fhir/*.ndjson``, ``dicom/`` and ``truth.json`` below an address; give the truth.

    ``spark``: the session whose workers make the pieces; None makes them here, one after the other.
    ``images``: how many patients have a radiograph; True is 30 %, False none. The truth holds
    ``bayes_auroc`` (records, images, both), ``dirt`` (planted, by kind), ``prevalence`` and
    ``risk``, the true risk by medical record number. Raises UsageError where the folder holds
    records that were not made here, MissingDependency where DICOM cannot be written.
    """
    if patients < 1:
        raise UsageError("a synthetic hospital has at least one patient")
    wanted = round(IMAGED * patients) if images is True else min(int(images), patients)
    if wanted:
        _needs_pydicom()
    place = _free(files.address(directory))
    making = place / MAKING
    try:
        files.write(making / "begun", b"")
        for name in MADE[::-1]:  # the truth first: without it nothing counts as made
            files.remove(place / name)
        for name in ("fhir", *(("dicom",) if wanted else ())):
            files.folder(place / name)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"cannot be written ({reason})", where=str(place)) from None
    chunks = -(-patients // CHUNK)
    groups = [list(g) for g in np.array_split(np.arange(chunks), min(chunks, FILES))]

    def work(group: int) -> None:
        _group(place, group, groups[group], patients, wanted, seed)

    if log:
        log(f"{patients:,} patients, {wanted:,} with a radiograph, in {len(groups)} pieces")
    if spark is None:
        for group in range(len(groups)):
            work(group)
    else:
        workers.each(spark, len(groups), work)
    truth = _truth(place, len(groups), patients=patients, seed=seed, radiographs=wanted)
    files.write(place / "truth.json", json.dumps(truth).encode())
    files.remove(making)
    return truth


def _needs_pydicom() -> None:
    try:
        import pydicom  # noqa: F401
    except ImportError:
        raise MissingDependency(
            "writing radiographs needs pydicom and its encoders",
            mend="pip install 'clinloom[dicom]', or leave the images out (--no-images)",
        ) from None


def _free(place: Address) -> Address:
    """The folder, unless it holds somebody else's records; a half-made hospital is ours."""
    if not files.exists(place / "truth.json") and not files.exists(place / MAKING / "begun"):
        held = [name for name in MADE if files.exists(place / name)]
        if held or (place.local and place.path.is_file()):
            raise UsageError(
                f"'{held[0] if held else place.name}' is there and was not made here",
                where=str(place),
                mend="choose an empty folder",
            )
    return place


def _group(
    place: Address, group: int, chunks: list[int], patients: int, imaged: int, seed: int
) -> None:
    """Write the files of some chunks, each whole or not at all, and their part of the truth."""
    dirt: Counter[str] = Counter()
    risks: list[Population] = []
    open_: dict[str, TextIO] = {}
    with ExitStack() as building:
        for chunk in chunks:
            first = int(chunk) * CHUNK
            count = min(CHUNK, patients - first)
            share = imaged * (first + count) // patients - imaged * first // patients
            generator = np.random.default_rng([seed, int(chunk)])
            people = population(first, count, imaged=share, generator=generator)
            export = Export(people, seed=seed, generator=generator)
            for kind in TYPES:
                if export.lines[kind]:
                    if kind not in open_:
                        name = place / "fhir" / f"{kind}.{group:04d}.ndjson"
                        path = building.enter_context(files.building(name))
                        open_[kind] = building.enter_context(path.open("w", encoding="utf-8"))
                    open_[kind].write(text(export.lines[kind]))
            if share:
                dirt += _images(place / "dicom" / f"{chunk:05d}", export, generator)
            dirt += export.dirt
            risks.append(people)
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(p, name) for p in risks])
        for name in ("number", "records", "severity", "risk", "outcome")
    }
    held = io.BytesIO()
    np.savez(held, **arrays)
    _put(place / MAKING / f"{group:04d}.npz", held.getvalue())
    _put(place / MAKING / f"{group:04d}.json", json.dumps(dirt).encode())


def _put(a: Address, data: bytes) -> None:
    """Write a file, whole or not at all, and no more surely than a copy: it can be made again."""
    if not a.local:
        files.write(a, data)
        return
    with files.building(a) as path:
        path.write_bytes(data)


def _images(folder: Address, export: Export, generator: np.random.Generator) -> Counter[str]:
    """Write a chunk's radiographs, and a few broken ones beside them."""
    people, seed = export.people, export.seed
    chosen = np.flatnonzero(np.isfinite(people.severity)).tolist()
    broken = max(1, int(BROKEN * len(chosen)))
    for turn, at in enumerate(chosen):
        number = int(people.number[at])
        pixels = _radiographs.draw(float(people.severity[at]), generator)
        series = uid(seed, number, "study"), uid(seed, number, "series")
        common: dict[str, Any] = {
            "patient": export.identifier(at),
            "moment": int(export.taken[at]),
            "modality": export.modality(at),
            "inverted": number % 5 == 0,
        }
        syntax = _radiographs.SYNTAXES[number % len(_radiographs.SYNTAXES)]
        uids = (*series, uid(seed, number, "1"))
        file = _radiographs.instance(pixels, uids=uids, syntax=syntax, **common)
        _put(folder / f"{number:07d}-1.dcm", file)
        if turn < broken:  # an exposure that broke off, and one whose pixels were left out
            spoilt = [(*series, uid(seed, number, name)) for name in ("2", "3")]
            plain = _radiographs.EXPLICIT
            two, three = (
                _radiographs.instance(pixels, uids=u, syntax=plain, **common) for u in spoilt
            )
            _put(folder / f"{number:07d}-2.dcm", two[: len(two) * 3 // 5])
            _put(folder / f"{number:07d}-3.dcm", _radiographs.pixelless(three))
    return Counter(
        truncated_dicom=min(broken, len(chosen)), pixelless_dicom=min(broken, len(chosen))
    )


def _truth(
    place: Address, groups: int, *, patients: int, seed: int, radiographs: int
) -> dict[str, Any]:
    parts = [place / MAKING / f"{group:04d}" for group in range(groups)]
    held = [np.load(io.BytesIO(files.read(f"{part}.npz"))) for part in parts]
    number, records, severity, risk, outcome = (
        np.concatenate([part[name] for part in held])
        for name in ("number", "records", "severity", "risk", "outcome")
    )
    dirt: Counter[str] = Counter()
    for part in parts:
        dirt.update(json.loads(files.read(f"{part}.json")))
    return {
        "patients": patients,
        "radiographs": radiographs,
        "seed": seed,
        "prevalence": float(outcome.mean()),
        "bayes_auroc": _risk.bayes(records, severity),
        "dirt": dict(sorted(dirt.items())),
        "risk": {
            record_number(n): round(r, 6)
            for n, r in zip(number.tolist(), risk.tolist(), strict=True)
        },
    }
