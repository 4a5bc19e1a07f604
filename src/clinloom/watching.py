"""The commands of a model at work: what comes is scored, is it still fit, and where it stands."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

from clinloom import tasks

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
        progress=tasks.progress(args),
    )


def recalibrate(args: argparse.Namespace) -> Any:
    """Learn a model's calibration anew from what came of its predictions: another bundle."""
    from clinloom.run import api as run

    tasks.where(args)
    return run.recalibrate(
        args.bundle,
        predictions=args.predictions,
        outcomes=args.outcomes,
        features=args.features,
        until=args.until,
        out=args.out,
        progress=tasks.progress(args),
    )


def compare(args: argparse.Namespace) -> Any:
    """Hold a challenger's predictions against those of the model at work."""
    from clinloom.run import api as run

    tasks.where(args)
    return run.compare(
        args.bundle,
        args.challenger,
        predictions=args.predictions,
        challenger_predictions=args.challenger_predictions,
        outcomes=args.outcomes,
        until=args.until,
        out=args.out,
        progress=tasks.progress(args),
    )


def stream(args: argparse.Namespace) -> Any:
    """Score what comes, from a folder, Kafka or Delta, until it is stopped."""
    from clinloom.run import api as run

    _, changes = tasks.where(args)
    stopped = threading.Event()

    def stop(*_: object) -> None:
        """End after the step at work; told again, at once."""
        stopped.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, stop)
    return run.stream(
        args.bundle,
        out=args.out,
        told=args.come,
        checkpoint=args.checkpoint,
        every=args.every,
        once=args.once,
        late=args.late,
        most=args.most,
        options=dict(each.partition("=")[::2] for each in args.option),
        overrides=changes,
        stopped=stopped.is_set,
        progress=tasks.progress(args),
    )


def track(args: argparse.Namespace) -> Any:
    """Log a finished run to MLflow, and register its bundle there."""
    from clinloom.deploy import registry

    tasks.where(args)
    told = {key: getattr(args, key) for key in ("uri", "experiment", "register", "alias")}
    return registry.track(args.directory, **told)


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], Any], str]] = {
    "monitor": (
        monitor,
        "clinloom monitor out/bundle --predictions risk.parquet --outcomes later.parquet --out at",
    ),
    "compare": (
        compare,
        "clinloom compare out/bundle new/bundle --predictions risk.parquet"
        " --challenger-predictions new.parquet --outcomes later.parquet",
    ),
    "recalibrate": (
        recalibrate,
        "clinloom recalibrate out/bundle --predictions lists --outcomes later.parquet --out new",
    ),
    "stream": (
        stream,
        "clinloom stream out/bundle --from ehr=incoming/fhir --out risks",
    ),
    "track": (track, "clinloom track out --register readmission --alias champion"),
}

JUDGING = ("monitor", "compare", "recalibrate")


def arguments(made: Mapping[str, argparse.ArgumentParser]) -> None:
    """The arguments of these commands."""
    for name in JUDGING:
        add = made[name].add_argument
        add("bundle", help="the bundle of a run, an address")
        if name == "compare":
            add("challenger", help="another bundle for the same question")
            add("--challenger-predictions", required=True, metavar="AT", help="what it scored")
        else:
            add("--features", metavar="AT", help="what `score --features` wrote; else beside")
        add("--predictions", required=True, metavar="AT", help="what `score` wrote, or a folder")
        add("--outcomes", metavar="AT", help="labels, or a later scoring of the same moments")
        add("--until", metavar="DATE", help="until when outcomes are known; else labels tell")
        add("--quiet", action="store_true", help="no progress")
        add("--platform", metavar="FILE", help="a YAML file with `platform` and `storage`")
    made["compare"].add_argument("--out", metavar="OUT", help="where compare.json is written")
    made["recalibrate"].add_argument("--out", required=True, help="the address of the new bundle")
    add = made["track"].add_argument
    add("directory", metavar="OUT", help="the output of a run, an address")
    add("--uri", help="the server; else MLflow's own setting, MLFLOW_TRACKING_URI")
    add("--experiment", metavar="NAME", help="else the study's name")
    add("--register", metavar="NAME", help="register the bundle under a name")
    add("--alias", metavar="NAME", help="and have this alias point to it")
    add("--platform", metavar="FILE", help="a YAML file with `storage`")
    add = made["monitor"].add_argument
    add("--feedback", metavar="ADDRESS", help="CDS Hooks' feedback, JSON lines or a folder")
    add("--by", choices=PERIODS, default="month", help="the periods, UTC (month)")
    add(
        "--false-alarms",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="of reports that raise any alarm though nothing changed (0.05)",
    )
    add("--out", metavar="OUT", help="where monitor.json and monitor.html are written")
    _of_stream(made["stream"])


def _of_stream(streamed: argparse.ArgumentParser) -> None:
    add = streamed.add_argument
    add("bundle", help="the bundle of a run, an address")
    add("--out", required=True, help="the address of a folder: predictions, and what was refused")
    add(
        "--from",
        dest="come",
        action="append",
        default=[],
        metavar="[NAME=]ADDRESS",
        help="where a source's records come: a folder, kafka://HOST:PORT/TOPIC, delta:ADDRESS; as"
        " `events`, rows of the events table; none: every source of the study at its path",
    )
    add("--checkpoint", metavar="ADDRESS", help="where its state is kept (OUT/checkpoint)")
    add("--every", default="10s", metavar="SPAN", help="how often it looks for what is new (10s)")
    add("--once", action="store_true", help="score what is there, and end")
    add("--late", metavar="SPAN", help="refuse events so much older than the latest; none: none")
    add("--most", type=int, default=1000, metavar="N", help="files a step takes at most (1000)")
    add("--option", action="append", default=[], metavar="KEY=VALUE", help="of Spark's reader")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key")
    add("--quiet", action="store_true", help="no progress")
    add("--platform", metavar="FILE", help="a YAML file with `platform` and `storage`")


def code(result: Any) -> int:
    """The exit code of a result."""
    return ALARM if isinstance(result, dict) and result.get("verdict") == "alarm" else 0
