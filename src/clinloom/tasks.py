"""Commands of the command line as tasks for a platform: nothing in them depends on where one stood.

The study is read and checked here; it travels resolved, every place absolute. Storage options
travel as they were given, with their references.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

import yaml

from clinloom import files, platforms
from clinloom.errors import UsageError
from clinloom.files import Address
from clinloom.platforms import Site, Task
from clinloom.run.progress import Progress
from clinloom.study import PLACES, Model, Study, placed

STUDY = "study.yaml"


def progress(args: argparse.Namespace) -> Progress:
    """How a command tells what it does: as text, as JSON, or not at all."""
    form = "quiet" if getattr(args, "quiet", False) else "json" if args.json else "text"
    return Progress(form=form)


def where(args: argparse.Namespace) -> tuple[Mapping[str, Model], list[str]]:
    """The platforms that ``--platform`` describes, and ``--set`` after its storages.

    The storages hold in this process from now on. Raises UsageError, StudyError.
    """
    on = getattr(args, "on", None)
    if on is not None:
        platforms.load(on)  # a name that is none is told before anything is read
    file, storage = platforms.described(args.platform)
    if storage:
        files.use({**files.settings(), **files.checked(storage)})
    changes = [f"storage.{scheme}={json.dumps(given)}" for scheme, given in storage.items()]
    return file, changes + list(getattr(args, "set", ()))


def of_run(args: argparse.Namespace, study: Study) -> Task:
    """``clinloom run`` with the study as a file of its own."""
    out = files.address(args.out)
    resolved = {k: v for k, v in study.resolved().items() if k != "platform"}
    text = yaml.safe_dump(resolved, sort_keys=False)
    command = ("run", STUDY, "--out", str(out), *_telling(args))
    found = {f"sources.{key}": place for key, place in _places(resolved["sources"])}
    found |= _secrets(study.storage)
    report = out / "report.html"
    return Task(command, {STUDY: text.encode()}, {**found, "--out": out}, report)


def of_score(args: argparse.Namespace, changes: list[str]) -> Task:
    """``clinloom score`` with every place of ``--set`` made absolute."""
    bundle, out = files.address(args.bundle), files.address(args.out)
    words, found = _changes(changes)
    more = ["--features"] * args.features
    if args.form != "parquet":
        more += ["--as", args.form]
    more += ["--reasons", str(args.reasons)] if args.reasons else []
    for option in args.option:
        more += ["--option", option]
        name, _, value = option.partition("=")
        if value.startswith("file:/"):
            found[f"--option {name}"] = files.address(value.removeprefix("file:"))
    command = ("score", str(bundle), "--out", str(out), *more, *words, *_telling(args))
    return Task(command, {}, {"bundle": bundle, "--out": out, **found})


def of_demo(args: argparse.Namespace, changes: list[str]) -> Task:
    """``clinloom demo``."""
    if args.patients < 1:
        raise UsageError("--patients is at least 1")
    out = files.address(args.out)
    words, found = _changes(changes)
    size = ("--patients", str(args.patients), "--seed", str(args.seed))
    command = ("demo", "--out", str(out), *size, *words, *_telling(args))
    return Task(command, {}, {"--out": out, **found}, out / "report.html")


def of_validation(args: argparse.Namespace, changes: list[str]) -> Task:
    """``clinloom validate-external`` with every place of ``--set`` made absolute."""
    bundle, out = files.address(args.bundle), files.address(args.out)
    words, found = _changes(changes)
    more = ["--recalibrate"] * args.recalibrate
    if args.recalibrated:
        found["--bundle"] = files.address(args.recalibrated)
        more += ["--bundle", str(found["--bundle"])]
    name = "validate-external"
    command = (name, str(bundle), "--out", str(out), *more, *words, *_telling(args))
    return Task(command, {}, {"bundle": bundle, "--out": out, **found}, out / "report.html")


def submitted(site: Site, task: Task, progress: Progress) -> Any:
    """Run a command on its platform: its result, or None where the platform brings back none.

    Ends this process with the command's own exit code where that is not 0, and where it has told
    its result itself. Results go to stdout, progress and faults to stderr, as everywhere.
    """
    outcome = site.platform.submit(task, site.options, note=progress.relay)
    if outcome.fault:
        print(f"clinloom: {outcome.fault}", file=sys.stderr)
    if outcome.code or outcome.told:
        raise SystemExit(outcome.code)
    if outcome.report:
        progress.note(f"the report: {outcome.report}")
    return outcome.result


def _changes(changes: list[str]) -> tuple[list[str], dict[str, Address]]:
    words: list[str] = []
    found: dict[str, Address] = {}
    for change in changes:
        told, place = placed(change)
        words += ["--set", told]
        if place is not None:
            found[change.partition("=")[0]] = files.address(place)
    return words, found


def _places(part: Any, above: tuple[str, ...] = ()) -> list[tuple[str, Address]]:
    """Every place in a resolved part of a study, by its key."""
    found: list[tuple[str, Address]] = []
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key in PLACES and isinstance(value, str):
                found.append((".".join((*above, key)), files.address(value)))
            else:
                found += _places(value, (*above, str(key)))
    return found


def _secrets(storage: Mapping[str, Mapping[str, Any]]) -> dict[str, Address]:
    """The files that hold secrets: each node that opens the storage reads them."""
    return {
        f"storage.{scheme}.{name}": files.address(value.removeprefix("file:"))
        for scheme, given in storage.items()
        for name, value in given.items()
        if isinstance(value, str) and value.startswith("file:/")
    }


def _telling(args: argparse.Namespace) -> tuple[str, ...]:
    told: tuple[str, ...] = ("--json",) * args.json + ("--quiet",) * args.quiet
    return told
