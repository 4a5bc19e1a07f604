"""HAPI in one JVM: a FHIR R4 server, and judges of FHIR resources and of CDS Hooks' answers."""

from __future__ import annotations

import json
import urllib.request
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clusters import parts
from tests.clusters.daemons import JAVA_OPTIONS, Daemons, answer, free_ports, listens, started

SOURCE = Path(__file__).with_name("Hapi.java")
QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
GRAVE = ("fatal", "error", "warning")
MOST = ("hapi-fhir", "org.hl7.fhir", "spring", "hibernate-core", "antlr4")
SECONDS = 120  # in which a busy machine answers the first that is asked


@dataclass(frozen=True)
class Hapi:
    """A running server, and its judges."""

    daemons: Daemons
    url: str  # http://127.0.0.1:PORT/fhir
    judges: str  # http://127.0.0.1:PORT

    def faults(self, resource: bytes) -> list[str]:
        """What the validator finds wrong with a resource, as FHIR writes it: errors, warnings."""
        told = json.loads(_posted(f"{self.judges}/validate", resource))
        issues = [issue for issue in told["issue"] if issue["severity"] in GRAVE]
        return [f"{issue.get('location', [''])[0]}: {issue['diagnostics']}" for issue in issues]

    def understood(self, cards: bytes) -> Any:
        """What it reads of a CDS Hooks response. Raises HTTPError where that is none."""
        return json.loads(_posted(f"{self.judges}/cards", cards))

    def open(self, is_open: bool) -> None:
        """Have the server listen again, or no more; the judges stay."""
        _posted(f"{self.judges}/door", b"open" if is_open else b"shut")

    def post(self, bundle: dict[str, Any]) -> Any:
        """Do a transaction."""
        return json.loads(_posted(self.url, json.dumps(bundle).encode()))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The resources of a type that the server keeps, 500 at most."""
        found = answer(f"{self.url}/{kind}?_count=500")
        return [entry["resource"] for entry in found.get("entry", ())]


def hapi() -> AbstractContextManager[Hapi]:
    """Start HAPI. Raises Missing, NotReady."""
    return started("hapi", _start)


def _start(daemons: Daemons) -> Hapi:
    port, judges = free_ports(2)
    paths = ":".join(map(str, [parts.compiled(SOURCE, _jars()), *_jars()]))
    java = [parts.java(), "-Xmx700m", "-Xms300m", *JAVA_OPTIONS, QUIET, "-cp", paths]
    daemons.start("hapi", [*java, SOURCE.stem, str(port), str(judges)])
    daemons.await_ready(lambda: listens(judges), what="HAPI", seconds=600)  # they come last
    return Hapi(daemons, f"http://127.0.0.1:{port}/fhir", f"http://127.0.0.1:{judges}")


def _jars() -> list[Path]:
    """Every jar, those first of which most classes are: a class is looked for in each in turn."""
    jars = sorted(parts.HAPI_FHIR.folder().glob("*.jar"))
    return sorted(jars, key=lambda jar: not jar.name.startswith(MOST))


def _posted(url: str, body: bytes) -> bytes:
    headers = {"Content-Type": "application/fhir+json"}
    asked = urllib.request.Request(url, body, headers)  # noqa: S310 - loopback
    with urllib.request.urlopen(asked, timeout=SECONDS) as response:  # noqa: S310
        found: bytes = response.read()
    return found
