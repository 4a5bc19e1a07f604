"""The command that judges a bundle on other patients."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from clinloom import platforms, tasks


def validate_external(args: argparse.Namespace) -> Any:
    """Judge a bundle on patients from elsewhere, whose outcomes are known; with a report."""
    from clinloom.run import api as run

    file, changes = tasks.where(args)
    site = platforms.site(args.on, told={}, file=file)
    progress = tasks.progress(args)
    if site is None:
        asked = {"recalibrate": args.recalibrate, "recalibrated": args.recalibrated}
        told = {"overrides": changes, "progress": progress}
        return run.validate_external(args.bundle, out=args.out, **asked, **told)
    task = tasks.of_validation(args, changes)
    return tasks.submitted(site, task, progress) or {"report": str(task.report)}


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], Any], str]] = {
    "validate-external": (
        validate_external,
        "clinloom validate-external out/bundle --set sources.ehr.path=elsewhere/fhir"
        " --out external/elsewhere --recalibrate",
    ),
}


def arguments(made: Mapping[str, argparse.ArgumentParser]) -> None:
    """The arguments of this command."""
    add = made["validate-external"].add_argument
    add("bundle", help="the bundle of a run, an address")
    add("--out", required=True, help="the address of a folder: report.html, external.json")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key")
    add("--recalibrate", action="store_true", help="also learn the calibration anew, and judge it")
    add("--bundle", dest="recalibrated", metavar="OUT", help="and write the bundle so changed here")
    add("--quiet", action="store_true", help="no progress")
    add("--on", metavar="NAME", help="the platform: local, connect, yarn …")
    add("--platform", metavar="FILE", help="a YAML file with `platform` and `storage`")
