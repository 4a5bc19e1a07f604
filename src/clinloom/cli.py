"""The command line: a subcommand a task. Results on stdout, progress on stderr.

Exit codes: 0 success, 1 failure, 2 wrong use or an invalid study, 3 an alarm of `monitor`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from clinloom import __version__, files, platforms, sending, tasks, validating, watching
from clinloom.deploy import serving
from clinloom.errors import ClinloomError, UsageError, instead
from clinloom.store import disk_full

EXIT = "exit codes: 0 success, 1 failure, 2 wrong use or invalid study, 3 an alarm of monitor"


class Parser(argparse.ArgumentParser):
    """A parser whose errors offer the nearest valid choice."""

    def error(self, message: str) -> NoReturn:
        hint = ""
        if "invalid choice: '" in message:
            word = message.split("invalid choice: '")[1].split("'")[0]
            hint = f"\n  → {instead(word, COMMANDS)}"
            message = f"there is no command '{word}'"
        elif "unrecognized arguments: " in message:
            word = message.split(": ", 1)[1].split()[0]
            options = [o for a in self._actions for o in a.option_strings]
            hint = f"\n  → {instead(word, options)}"
        print(f"clinloom: {message}{hint}\n  → {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def doctor(args: argparse.Namespace) -> Any:
    """Tell what is missing here, on a platform or of a storage, and how to mend it."""
    from clinloom import doctor as room

    file, storage = platforms.described(args.platform)
    if storage:
        files.use(storage)
    if args.storage:
        asked = room.storage_checks(args.storage)
    else:
        site = platforms.site(args.on, told={}, file=file)
        asked = room.asked(spark=args.spark, site=site)
    found = []
    for check in asked:
        found.append(check)
        if not args.json:
            print(f"{'ok ' if check.ok else 'NO '} {check.name:<22} {check.detail}", flush=True)
            if not check.ok and check.mend:
                print(f"      → {check.mend}")
    failed = [c for c in found if not c.ok and c.required]
    if failed and not args.json:
        raise ClinloomError(f"{len(failed)} of {len(found)} checks failed")
    return [c.__dict__ for c in found] if args.json else None


def synth(args: argparse.Namespace) -> Any:
    """Make a synthetic hospital export with a known risk."""
    from clinloom.spark import waiting
    from clinloom.synth import CHUNK, synthesise

    if args.patients < 1:
        raise UsageError("--patients is at least 1")
    tasks.where(args)
    note = tasks.progress(args).note
    here = args.patients <= CHUNK  # one piece: nothing for a second core
    with ExitStack() as held:
        spark = None if here else held.enter_context(waiting.started(note))
        truth = synthesise(
            spark,
            args.directory,
            patients=args.patients,
            seed=args.seed,
            images=args.with_images and (args.images if args.images is not None else True),
            log=note,
        )
    shown = {k: v for k, v in truth.items() if k != "risk" and k != "patients_risk"}
    return {"directory": str(args.directory), **_brief(shown)}


def _brief(truth: dict[str, Any]) -> dict[str, Any]:
    """The truth without its per-patient parts."""
    return {k: v for k, v in truth.items() if not (isinstance(v, dict) and len(v) > 60)}


def validate(args: argparse.Namespace) -> Any:
    """Check a study file."""
    from clinloom.run import api as run

    study = run.read_study(args.study, overrides=args.set)
    if args.schema:
        from clinloom import plugins
        from clinloom.study import schema

        print(json.dumps(schema(plugins), indent=1))
        return None
    notes = [*run.lacking(study), *run.apart(study)]
    found: dict[str, Any] = {"study": study.name, "valid": True, "hash": study.hash}
    if args.data:
        seen = run.look(study)
        notes += run.doubts(study, seen)
        for name, one in seen.items():
            found[f"sources.{name}"] = (
                f"{one.events:,} events of {len(one.codes):,} codes in {one.extent},"
                f" {one.refused.total():,} records refused"
            )
    else:
        notes += run.unzoned(study)
    lines = {"note" if len(notes) == 1 else f"note {n}": text for n, text in enumerate(notes, 1)}
    return {**found, **({"notes": notes} if args.json else lines)}


def codes(args: argparse.Namespace) -> Any:
    """List the codes that a study's sources hold, from the heads of their files."""
    from clinloom.run import api as run

    seen = run.look(run.read_study(args.study, overrides=args.set))
    if args.json:
        return {name: one.table() for name, one in seen.items()}
    for name, one in seen.items():
        print(f"sources.{name}: {one.extent}, {one.refused.total():,} records refused")
        print(f"{'events':>10} {'numbers':>10}  {'units':<16} code")
        for row in one.table():
            units = ", ".join(row["units"])
            print(f"{row['events']:>10,} {row['numbers']:>10,}  {units:<16} {row['code']}")
    return None


def run_(args: argparse.Namespace) -> Any:
    """Run a study, from files to report and bundle."""
    from clinloom.run import api as run

    file, changes = tasks.where(args)
    study = run.read_study(args.study, overrides=changes)
    site = platforms.site(args.on, told=study.platform, file=file)
    progress = tasks.progress(args)
    if site is None:
        return run.run(study, out=args.out, progress=progress).summary()
    out = files.address(args.out)
    return tasks.submitted(site, tasks.of_run(args, study), progress) or run.Run(out).summary()


def report(args: argparse.Namespace) -> Any:
    """Render the report of a finished run again."""
    from clinloom.run import api as run

    tasks.where(args)
    return {"report": str(run.render(args.directory))}


def sweep(args: argparse.Namespace) -> Any:
    """Remove what killed runs and attempts left behind: what no commit names."""
    from clinloom.run import api as run

    tasks.where(args)
    return run.sweep(args.directory)


def score(args: argparse.Namespace) -> Any:
    """Score new patients in batch with a bundle."""
    from clinloom.run import api as run

    file, changes = tasks.where(args)
    site = platforms.site(args.on, told={}, file=file)
    progress = tasks.progress(args)
    if site is None:
        asked: dict[str, Any] = {"form": args.form, "options": args.option}
        asked |= {"overrides": changes, "watched": args.features, "reasons": args.reasons}
        return run.score(args.bundle, out=args.out, **asked, progress=progress)
    task = tasks.of_score(args, changes)
    return tasks.submitted(site, task, progress) or {"predictions": str(task.places["--out"])}


def serve(args: argparse.Namespace) -> Any:
    """Serve a bundle's risks by HTTP: events and FHIR in, without a JVM."""
    tasks.where(args)
    serving.serve(**{name: getattr(args, name) for name in serving.NAMES})


def plugins_(args: argparse.Namespace) -> Any:
    """List what each room offers."""
    from clinloom import plugins

    out: dict[str, dict[str, str]] = {}
    for room in plugins.ROOMS:
        out[room] = {}
        for name in plugins.choices(room):
            text = (plugins.load(room, name).__doc__ or "").strip().split("\n")[0]
            out[room][name] = text
            if not args.json:
                print(f"{room:<10} {name:<22} {text}")
    return out if args.json else None


def demo(args: argparse.Namespace) -> Any:
    """Synthesise a cohort and run the whole study on it."""
    from clinloom.run import api as run

    file, changes = tasks.where(args)
    site = platforms.site(args.on, told={}, file=file)
    progress = tasks.progress(args)
    if site is None:
        asked = {"patients": args.patients, "seed": args.seed}
        return run.demo(args.out, **asked, overrides=changes, progress=progress).summary()
    out = files.address(args.out)
    return tasks.submitted(site, tasks.of_demo(args, changes), progress) or run.Run(out).summary()


COMMANDS = {
    "doctor": (doctor, "clinloom doctor --on yarn --platform site.yaml"),
    "synth": (synth, "clinloom synth data/synthetic --patients 2000 --seed 7"),
    "validate": (validate, "clinloom validate study.yaml --data --set cohort.outcome.within=60d"),
    "codes": (codes, "clinloom codes study.yaml"),
    "run": (run_, "clinloom run examples/synthetic.yaml --out hdfs:///user/me/out --on yarn"),
    "report": (report, "clinloom report out"),
    "sweep": (sweep, "clinloom sweep s3://bucket/out"),
    "score": (
        score,
        "clinloom score out/bundle --set sources.ehr.path=new/fhir --out risk.parquet",
    ),
    "serve": (serve, "clinloom serve out/bundle --token env:CLINLOOM_TOKEN"),
    "plugins": (plugins_, "clinloom plugins"),
    "demo": (demo, "clinloom demo --out demo-out"),
    **validating.COMMANDS,
    **sending.COMMANDS,
    **watching.COMMANDS,
}


def parser() -> Parser:
    """The command line's parser."""
    top = Parser(
        prog="clinloom",
        description="From patient records and images to an evaluated risk model, on Spark.",
        epilog=f"example: clinloom demo --out demo-out\n{EXIT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"clinloom {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made = {}
    for name, (function, example) in COMMANDS.items():
        made[name] = sub = commands.add_parser(
            name,
            help=(function.__doc__ or "").strip(),
            description=function.__doc__,
            epilog=f"example: {example}\n{EXIT}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--json", action="store_true", help="results and progress as JSON")
        sub.set_defaults(function=function)
        if name in ("synth", "run", "score", "demo"):
            sub.add_argument("--quiet", action="store_true", help="no progress")
        if name in ("run", "score", "demo", "doctor"):
            sub.add_argument("--on", metavar="NAME", help="the platform: local, connect, yarn …")
        if name in ("run", "score", "demo", "doctor", "report", "sweep", "synth", "serve"):
            sub.add_argument(
                "--platform", metavar="FILE", help="a YAML file with `platform` and `storage`"
            )
        if name in ("validate", "codes", "run", "score", "demo"):
            sub.add_argument(
                "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key"
            )
    made["doctor"].add_argument("--spark", action="store_true", help="also start a Spark session")
    made["doctor"].add_argument("--storage", metavar="ADDRESS", help="try a storage instead")
    made["synth"].add_argument("directory", help="the folder of fhir/, dicom/, truth.json")
    made["synth"].add_argument("--images", type=int, help="patients with a radiograph")
    made["synth"].add_argument("--no-images", dest="with_images", action="store_false")
    for name in ("validate", "codes", "run"):
        made[name].add_argument("study", help="a study file (YAML), at any address")
    made["validate"].add_argument("--schema", action="store_true", help="print the JSON Schema")
    made["validate"].add_argument(
        "--data", action="store_true", help="also look at the heads of the sources' files"
    )
    made["run"].add_argument("--out", required=True, help="the output's address")
    for name in ("report", "sweep"):
        made[name].add_argument("directory", metavar="OUT", help="the output of a run, an address")
    made["score"].add_argument("bundle", help="the bundle of a run, an address")
    made["score"].add_argument("--out", required=True, help="the address of the scores")
    made["score"].add_argument(
        "--as", dest="form", default="parquet", metavar="FORM", help="fhir, omop, meds, delta, jdbc"
    )
    made["score"].add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the form"
    )
    made["score"].add_argument(
        "--features", action="store_true", help="also write the features, for `monitor`"
    )
    made["score"].add_argument(
        "--reasons", type=int, default=0, metavar="N", help="also tell what adds most to each risk"
    )
    serving.arguments(made["serve"])
    made["demo"].add_argument("--out", default="demo-out", help="the output's address")
    for name, patients in (("synth", 2000), ("demo", 2000)):
        made[name].add_argument("--patients", type=int, default=patients)
        made[name].add_argument("--seed", type=int, default=7)
    validating.arguments(made)
    sending.arguments(made)
    watching.arguments(made)
    return top


def _show(result: Any, *, as_json: bool) -> None:
    if result is None:
        return
    if as_json or not isinstance(result, dict):
        print(json.dumps(result, indent=1, default=str))
        return
    for key, value in result.items():
        shown = value if not isinstance(value, (dict, list)) else json.dumps(value, default=str)
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            shown = f"\n{'':<13}".join(value) or "none"
        print(f"{key:<12} {shown}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; give its exit code."""
    args = parser().parse_args(argv)
    try:
        result = args.function(args)
        _show(result, as_json=args.json)
        return watching.code(result)
    except SystemExit as ended:  # with the exit code of a command on its platform
        return int(ended.code or 0)
    except ClinloomError as error:
        print(f"clinloom: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("clinloom: stopped; run again to go on after the last whole stage", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        print(f"clinloom: {_of_storage(error) or _unexpected(error)}", file=sys.stderr)
        return 1


def _of_storage(error: Exception) -> str | None:
    """What a storage answered; those faults name an address and nothing of its content."""
    place = getattr(error, "filename", None)
    if not isinstance(error, OSError) or not isinstance(place, str) or "://" not in place:
        return None
    return f"{place}: {error.strerror}\n  → `clinloom doctor --storage ADDRESS` tells what holds"


def _unexpected(error: BaseException) -> str:
    """One line for an error that nobody foresaw; its trace goes to a file, not to the reader.

    Messages of foreign libraries may quote data, so only the type and the place are shown.
    """
    import tempfile
    import traceback

    if disk_full(error):
        return "the disk is full; nothing half-written was kept\n  → free some space and run again"
    if os.environ.get("CLINLOOM_DEBUG"):
        traceback.print_exception(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "clinloom" in f.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="clinloom-", suffix=".trace", delete=False
        ) as file:
            file.writelines(traceback.format_tb(error.__traceback__))
        trace = f"the trace is in {file.name} (without values)"
    except OSError:
        trace = "no trace: temporary files cannot be written"
    return (
        f"an unexpected {type(error).__name__} at {place}\n  → {trace}; CLINLOOM_DEBUG=1 shows all"
    )


if __name__ == "__main__":
    raise SystemExit(main())
