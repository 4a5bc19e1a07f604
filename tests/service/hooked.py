"""A bundle with its evidence that speaks CDS Hooks, the service on it, and a small FHIR server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import numpy as np
import yaml
from tests.service import made
from tests.service.test_auth import EC

from clinloom import files, plugins
from clinloom import study as studies
from clinloom.deploy import bundle as bundles
from clinloom.deploy._options import Options
from clinloom.deploy.rest import application
from clinloom.deploy.scorer import Scorer
from clinloom.features import Feature

METRICS = {
    "auroc": {"value": 0.84, "low": 0.8, "high": 0.88},
    "calibration_slope": {"value": 0.97, "low": 0.9, "high": 1.05},
}
EVIDENCE = {
    "evidence": {"test": METRICS},
    "patients": {"train": 1234, "test": 530},
    "warnings": ["The test rows hold fewer than 100 outcomes, which gives wide intervals."],
    "displays": {"LOINC//2160-0": "Creatinine *(serum)*"},
}
WARD = "/cds-services/ward"
SECRET = "Mustermann-1950"  # of a patient: in no answer
ALWAYS = {"anonymous": True, "warning": 0.0, "lapsed": "shown"}  # a card for everybody


def publish(folder: Path, *, cover=True, evidence=EVIDENCE, **hooks) -> Path:
    """A bundle whose study has ``deploy.cds_hooks``; without ``cover`` it is an older one."""
    document = yaml.safe_load(made.STUDY)
    document["deploy"] = {"cds_hooks": {**ALWAYS, **hooks}}
    resolved = studies.parse(document, rooms=plugins, base=str(folder.parent))
    plain = made.scorer()
    arrays = {k: v for k, v in plain.arrays.items() if k != "cover"}
    if cover:
        arrays["cover"] = np.tile([400.0, 250, 150, 200, 50, 100, 50], len(arrays["root"]))
    bundles.publish(
        files.address(folder),
        scorer=Scorer(plain.model, plain.statistics, arrays, plain.slope, plain.intercept, 0.4),
        study=resolved.portable(),
        features=[Feature.named(name, modality="records") for name in made.feature_names()],
        evidence={"study_hash": resolved.hash, **evidence},
        check=lambda: None,
    )
    return folder


class Local:
    """Asks an application in this process; ``client``: from where."""

    def __init__(self, app, client=("127.0.0.1", 50_000)):
        self.app, self._client = app, client

    def request(self, method, path, **more) -> httpx.Response:
        """Ask once."""

        async def ask():
            transport = httpx.ASGITransport(app=self.app, client=self._client)
            async with httpx.AsyncClient(transport=transport, base_url="http://cds") as client:
                return await client.request(method, path, **more)

        return asyncio.run(ask())

    def get(self, path, **more) -> httpx.Response:
        """GET."""
        return self.request("GET", path, **more)

    def post(self, path, **more) -> httpx.Response:
        """POST."""
        return self.request("POST", path, **more)

    def options(self, path, **more) -> httpx.Response:
        """OPTIONS."""
        return self.request("OPTIONS", path, **more)


@contextmanager
def service(folder: Path, *, client=("127.0.0.1", 50_000), token=None, **hooks):
    """A client of the service of such a bundle."""
    place = publish(folder / "bundle", **hooks)
    found = Local(application(str(place), Options(token=token)), client)
    found.app.state.service.open()
    yield found
    found.app.state.service.close()


class Ehr:
    """A FHIR server on loopback that holds made patients; ``trouble``: a change to its answers."""

    def __init__(self, *numbers: int, page: int = 1000):
        self.page, self.token, self.trouble = page, "secret", None
        self.asked: list[str] = []
        self.resources = [
            entry["resource"] for number in numbers for entry in made.patient(number)["entry"]
        ]

    def __enter__(self):
        ehr = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                ehr.asked.append(self.path)
                status, headers, body = ehr.answer(self.path, self.headers)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/fhir"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path, headers):
        if headers.get("Authorization") != f"Bearer {self.token}":
            return 401, {}, b"{}"
        if self.trouble is not None:
            found = self.trouble(path)
            if found is not None:
                return found
        split = urlsplit(path)
        found = self.found(split.path.removeprefix("/fhir/"), parse_qs(split.query))
        return (404, {}, b"{}") if found is None else (200, {}, json.dumps(found).encode())

    def found(self, what, query):
        """A read's resource or a search's Bundle, as a prefetch holds them too."""
        kind, _, name = what.partition("/")
        if name:
            wanted = (kind, name)
            return next((r for r in self.resources if (r["resourceType"], r["id"]) == wanted), None)
        codes = {token.rpartition("|")[2] for token in tokens(query)}
        whose = f"Patient/{query['patient'][0]}"
        mine = [
            r
            for r in self.resources
            if r["resourceType"] == kind and r["subject"]["reference"] == whose and coded(r) & codes
        ]
        start = int(query.get("_start", ["0"])[0])
        answer = {
            "resourceType": "Bundle",
            "type": "searchset",
            "entry": [{"resource": r} for r in mine[start : start + self.page]],
        }
        if start + self.page < len(mine):
            rest = "&".join(f"{k}={v[0]}" for k, v in query.items() if k != "_start")
            more = f"{self.url}/{kind}?{rest}&_start={start + self.page}"
            answer["link"] = [{"relation": "next", "url": more.replace("|", "%7C")}]
        return answer


def coded(resource) -> set[str]:
    """The codes by which a search finds it."""
    if "class" in resource:
        return {resource["class"]["code"]}
    return {coding["code"] for coding in resource["code"]["coding"]}


def tokens(query) -> list[str]:
    """Those that a search names."""
    return [token for name in ("code", "class") for token in query.get(name, [""])[0].split(",")]


def key(named, kind: str) -> str:
    """The key of a resource type among a prefetch's, which end in their templates' digests."""
    return next(name for name in named if name.partition("-")[0] == kind)


def prefetched(templates, number: int) -> dict:
    """What an EHR prefetches of a made patient."""
    ehr, found = Ehr(number), {}
    for key, template in templates.items():
        split = urlsplit(template.replace("{{context.patientId}}", f"p{number}"))
        found[key] = ehr.found(split.path, parse_qs(split.query))
    return found


def call(number: int = 3, hook: str = "patient-view", **more) -> dict:
    """A request of a hook."""
    context = {"userId": "Practitioner/1", "patientId": f"p{number}"}
    if hook == "encounter-discharge":
        context["encounterId"] = f"p{number}-e"
    if hook.startswith("order"):
        context["draftOrders"] = {"resourceType": "Bundle", "entry": []}
    if hook == "order-select":
        context["selections"] = []
    told = {"hook": hook, "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"}
    return {**told, "context": context, **more}


def granted(ehr: Ehr, **more) -> dict:
    """The part of a request that lets the service ask the FHIR server."""
    authorization = {"access_token": ehr.token, "token_type": "Bearer", "expires_in": 300}
    authorization |= {"scope": "user/*.read", "subject": "cds", **more}
    return {"fhirServer": ehr.url, "fhirAuthorization": authorization}


def problem(answer, status, reason):
    """What a refusal tells: problem details, without a patient's value."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["type"] == f"urn:clinloom:{reason}" and told["status"] == status
    assert "Traceback" not in answer.text and "M00003" not in answer.text
    return told


def bearer(path, **claims):
    """The header with a token of the client, made for a path."""
    now = int(time.time())
    told = {"iss": "https://ehr.example.org", "aud": f"https://cds.example.org/clinic{path}"}
    told |= {"iat": now, "exp": now + 60, "jti": uuid.uuid4().hex, **claims}
    return {"Authorization": f"Bearer {jwt.encode(told, EC, 'ES384', headers={'kid': 'ec'})}"}
