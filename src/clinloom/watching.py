"""The commands that ask whether a model at work is still fit."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from clinloom import tasks
from clinloom.run.progress import Progress

ALARM = 3  # the exit code of a command that raises an alarm
PERIODS = ("week", "month")


def monitor(args: argparse.Namespace) -> Any:
    """Say whether a model at work has grown unfit; exit code 3 where there is an alarm."""
    from clinloom.run import api as run

    tasks.where(args)
    return run.monitor(
        args.bundle,
        predictions=args.predictions,
        outcomes=args.outcomes,
        features=args.features,
        feedback=args.feedback,
        by=args.by,
        until=args.until,
        level=args.false_alarms,
        out=args.out,
        progress=Progress(form="quiet" if args.quiet else "json" if args.json else "text"),
    )


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], Any], str]] = {
    "monitor": (
        monitor,
        "clinloom monitor out/bundle --predictions risk.parquet --outcomes later.parquet --out at",
    ),
}


def arguments(made: Mapping[str, argparse.ArgumentParser]) -> None:
    """The arguments of these commands."""
    watched = made["monitor"]
    watched.add_argument("bundle", help="the bundle of a run, an address")
    add = watched.add_argument
    add("--predictions", required=True, metavar="ADDRESS", help="what `score` wrote, or a folder")
    add("--outcomes", metavar="ADDRESS", help="labels, or a later scoring of the same moments")
    add("--features", metavar="ADDRESS", help="what `score --features` wrote; else found beside")
    add("--feedback", metavar="ADDRESS", help="CDS Hooks' feedback, JSON lines or a folder")
    add("--by", choices=PERIODS, default="month", help="the periods, UTC (month)")
    add("--until", metavar="DATE", help="up to when outcomes are known; else told by the labels")
    add(
        "--false-alarms",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="of reports that raise any alarm though nothing changed (0.05)",
    )
    add("--out", metavar="OUT", help="where monitor.json and monitor.html are written")
    add("--quiet", action="store_true", help="no progress")
    add("--platform", metavar="FILE", help="a YAML file with `platform` and `storage`")


def code(result: Any) -> int:
    """The exit code of a result."""
    return ALARM if isinstance(result, dict) and result.get("verdict") == "alarm" else 0
