"""A small FHIR R4 server for tests: transactions, all or nothing, on the conditions of FHIR 3.1.0.

It knows searches by `identifier` and `_tag`, resolves names within a Bundle and conditional
references, and refuses what dangles, matches twice or lacks an element that R4 requires.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

REQUIRED = {
    "RiskAssessment": ("status", "subject"),
    "Observation": ("status", "code"),
    "Provenance": ("target", "recorded", "agent"),
    "Device": (),
}
Resource = dict[str, Any]


class Refused(Exception):
    """A status with an OperationOutcome."""

    def __init__(self, status: int, code: str, text: str):
        super().__init__(text)
        self.status, self.code = status, code


class Hospital:
    """What the server holds, by type and id, and how it behaves.

    ``faults``: what becomes of the next transactions, one each: a status, ``lost`` (the connection
    ends before), ``late`` (after all was done), or None. ``refuses``: a rule of its own; ``fails``:
    one by which it answers 500.
    """

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], Resource] = {}
        self.versions: dict[tuple[str, str], int] = {}
        self.faults: list[int | str | None] = []
        self.refuses: Callable[[Resource], bool] = lambda _: False
        self.fails: Callable[[Resource], bool] = lambda _: False
        self.transactions: list[int] = []
        self.token: str | None = None
        self.smart: Resource | None = None  # its .well-known/smart-configuration

    def of(self, kind: str) -> list[Resource]:
        """The resources of a type."""
        return [resource for (one, _), resource in self.held.items() if one == kind]

    def patient(self, number: int, system: str = "urn:mrn") -> None:
        """A patient whom the server knows by number."""
        identifier = [{"system": system, "value": f"M{number:05}"}]
        self.put({"resourceType": "Patient", "id": f"own{number}", "identifier": identifier})

    def put(self, resource: Resource) -> None:
        """Hold a resource; a new version only where something is new."""
        place = resource["resourceType"], resource["id"]
        if self.held.get(place) != resource:
            self.versions[place] = self.versions.get(place, 0) + 1
        self.held[place] = resource

    def found(self, query: str) -> list[tuple[str, str]]:
        """Who matches ``Type?identifier=system|value`` or ``Type?_tag=system|code``."""
        kind, _, asked = query.partition("?")
        name, _, told = asked.partition("=")
        system, value = (
            re.sub(r"\\(.)", r"\1", part) for part in re.split(r"(?<!\\)\|", unquote(told))
        )
        found = []
        for (one, number), resource in self.held.items():
            if name == "identifier":
                pairs = [(i.get("system"), i["value"]) for i in resource.get("identifier", ())]
            else:
                tags = resource.get("meta", {}).get("tag", ())
                pairs = [(tag.get("system"), tag["code"]) for tag in tags]
            if one == kind and (system, value) in pairs:
                found.append((one, number))
        return found

    def transaction(self, bundle: Resource) -> Resource:
        """Do it all, or raise Refused and do nothing."""
        if bundle.get("resourceType") != "Bundle" or bundle.get("type") != "transaction":
            raise Refused(400, "invalid", "no transaction")
        before = copy.deepcopy((self.held, self.versions))
        try:
            return self._done(bundle["entry"])
        except Refused:
            self.held, self.versions = before
            raise

    def _done(self, entries: list[Resource]) -> Resource:
        places: list[tuple[tuple[str, str], str]] = []
        names: dict[str, str] = {}
        for entry in entries:
            kind, request = entry["resource"]["resourceType"], entry["request"]
            condition = request.get("ifNoneExist")
            query = f"{kind}?{condition}" if condition else request["url"]
            if not query.startswith(f"{kind}?") or entry["fullUrl"] in names:
                raise Refused(400, "invalid", "an entry is known by nothing, or twice")
            found = self.found(query)
            if len(found) > 1:
                raise Refused(412, "multiple-matches", "several match")
            status = "200" if found else "201"
            place = found[0] if found else (kind, f"{kind[:3].lower()}{len(self.versions)}")
            if place in [one for one, _ in places]:
                raise Refused(400, "duplicate", "two entries are one resource")
            if not found:
                self.versions[place] = 0
            places.append((place, status))
            names[entry["fullUrl"]] = "/".join(place)
        for entry, (place, status) in zip(entries, places, strict=True):
            if entry["request"]["method"] == "POST" and status == "200":
                continue
            resource = self._resolved(entry["resource"], names)
            lacking = [name for name in REQUIRED[place[0]] if not resource.get(name)]
            if lacking or self.refuses(resource):
                raise Refused(422, "business-rule", f"refused: {json.dumps(resource)}")
            if self.fails(resource):
                raise Refused(500, "exception", "it fails")
            self.put({**resource, "id": place[1]})
        told = [{"response": {"status": s, "location": "/".join(place)}} for place, s in places]
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": told}

    def _resolved(self, part: Any, names: dict[str, str]) -> Any:
        if isinstance(part, list):
            return [self._resolved(one, names) for one in part]
        if not isinstance(part, dict):
            return part
        made = {name: self._resolved(value, names) for name, value in part.items()}
        told = made.get("reference")
        if told is None:
            return made
        if "?" in told:
            found = self.found(told)
            if len(found) != 1:
                raise Refused(404 if not found else 412, "not-found", f"who is {told}?")
            return {**made, "reference": "/".join(found[0])}
        told = names.get(told, told)
        known = set(names.values()) | {"/".join(place) for place in self.held}
        if told not in known:
            raise Refused(400, "not-found", f"{told} dangles")
        return {**made, "reference": told}


@contextmanager
def serving(hospital: Hospital) -> Iterator[str]:
    """The server at a base address of this machine's, while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}
            if self.path == "/fhir/.well-known/smart-configuration" and hospital.smart:
                return self.tell(200, hospital.smart)
            self.tell(*((200, told) if self.path == "/fhir/metadata" else (404, {})))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fault = hospital.faults.pop(0) if hospital.faults else None
            if fault == "lost":
                return
            if isinstance(fault, int):
                return self.tell(fault, {}, **{"Retry-After": "0"})
            if hospital.token and self.headers["Authorization"] != f"Bearer {hospital.token}":
                return self.tell(401, {})
            bundle = json.loads(body)
            try:
                told = 200, hospital.transaction(bundle)
                hospital.transactions.append(len(bundle["entry"]))
            except Refused as error:
                issue = [{"severity": "error", "code": error.code, "diagnostics": str(error)}]
                told = error.status, {"resourceType": "OperationOutcome", "issue": issue}
            if fault != "late":
                self.tell(*told)

        def tell(self, status: int, told: Resource, **headers: str) -> None:
            data = json.dumps(told).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/fhir+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/fhir"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
