"""The command that takes a scoring to a FHIR server."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from clinloom import tasks


def send(args: argparse.Namespace) -> Any:
    """Send the scores of `score --as fhir` to a FHIR server; again, and it goes on."""
    from clinloom.deploy import sender

    tasks.where(args)
    progress = tasks.progress(args)
    return sender.send(
        args.bundle,
        predictions=args.predictions,
        to=args.to,
        by=args.by,
        token=args.token,
        client=args.client,
        key=args.key,
        key_id=args.key_id,
        scope=args.scope,
        at_once=args.at_once,
        patience=args.patience,
        note=progress.note,
    )


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], Any], str]] = {
    "send": (
        send,
        "clinloom send out/bundle --predictions risk.ndjson --to https://ehr.example.org/fhir"
        " --token env:FHIR_TOKEN",
    ),
}


def arguments(made: Mapping[str, argparse.ArgumentParser]) -> None:
    """The arguments of this command."""
    sent = made["send"]
    sent.add_argument("bundle", help="the bundle that scored, an address")
    add = sent.add_argument
    add("--predictions", required=True, metavar="ADDRESS", help="what `score --as fhir` wrote")
    add("--to", required=True, metavar="URL", help="the server's base address")
    add(
        "--by",
        default="identifier",
        metavar="HOW",
        help="how it knows the patient: identifier, or reference: the records that were scored",
    )
    add("--token", metavar="REFERENCE", help="what it asks for: env:NAME or file:/PATH")
    add("--client", metavar="ID", help="or ask for tokens as this SMART backend service")
    add("--key", metavar="REFERENCE", help="its private key, PEM or JWK: env:NAME or file:/PATH")
    add("--key-id", metavar="KID", help="the key's identifier, where it tells none")
    add("--scope", metavar="SCOPES", help="what is asked for, where the usual is not what fits")
    add("--at-once", type=int, default=50, metavar="N", help="predictions in a transaction (50)")
    add("--patience", type=float, default=300, metavar="SECONDS", help="of tries of one (300)")
    add("--quiet", action="store_true", help="no progress")
    add("--platform", metavar="FILE", help="a YAML file with `platform` and `storage`")
