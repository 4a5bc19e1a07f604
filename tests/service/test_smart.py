"""A sender gets its tokens as a SMART backend service, from a real authorization server."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from tests.service import assessed
from tests.service.fhir_server import Hospital, serving

from clinloom import cli
from clinloom.deploy import sender
from clinloom.deploy.bundle import Bundle
from clinloom.deploy.sender import send
from clinloom.deploy.smart import SCOPE, Key
from clinloom.errors import SourceError, UsageError

PATIENTS = 6
EC = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())


def pem(key) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def jwk(key, **more) -> str:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return json.dumps({**algorithm.to_jwk(key, as_dict=True), **more})


class Authority:
    """Who gives tokens: to the client `sender`, for an assertion that is shown once.

    ``answers``: what the next are told instead; ``span``: for how many seconds tokens hold;
    ``later``: for how many it asks to be left alone.
    """

    def __init__(self, hospital: Hospital):
        self.hospital, self.answers, self.span, self.later = hospital, [], 300, None
        self.asked: list[dict] = []
        self.keys = {"ec": (EC.public_key(), "ES384"), "rsa": (RSA.public_key(), "RS384")}
        self.url = ""

    def told(self, form: dict[str, str]) -> tuple[int, dict]:
        """What an asker is told."""
        if self.answers:
            return self.answers.pop(0)
        assertion = form["client_assertion"]
        key, algorithm = self.keys[jwt.get_unverified_header(assertion)["kid"]]
        claims = jwt.decode(assertion, key, algorithms=[algorithm], audience=self.url)
        assert claims["iss"] == claims["sub"] == "sender"
        assert claims["jti"] not in {one["jti"] for one in self.asked}
        assert time.time() < claims["exp"] <= time.time() + 300
        assert form["grant_type"] == "client_credentials" and form["scope"] == SCOPE
        assert form["client_assertion_type"].endswith(":jwt-bearer")
        self.asked.append(claims)
        self.hospital.token = f"canary-{len(self.asked)}"
        told = {"access_token": self.hospital.token, "token_type": "Bearer", "scope": SCOPE}
        return 200, {**told, "expires_in": self.span}


@pytest.fixture
def hospital():
    found = Hospital()
    found.token = "nobody's yet"
    for number in range(PATIENTS):
        found.patient(number)
    return found


@pytest.fixture
def authority(hospital):
    found = Authority(hospital)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, told = found.told({k: v[0] for k, v in parse_qs(text).items()})
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if found.later:
                self.send_header("Retry-After", found.later)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/token/?of=fhir"
    hospital.smart = {
        "token_endpoint": found.url,
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
    }
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def lines(published) -> str:
    return "".join(assessed.lines(Bundle.load(published), PATIENTS))


@pytest.fixture
def asked(lines, tmp_path, monkeypatch):
    monkeypatch.setattr(sender, "FIRST", 0.01)
    (tmp_path / "risk.ndjson").write_text(lines)
    (tmp_path / "key").write_text(jwk(EC, kid="ec"))
    told = {"client": "sender", "key": f"file:{tmp_path / 'key'}", "patience": 0}
    return {"predictions": str(tmp_path / "risk.ndjson"), "at_once": 2, **told}


@pytest.mark.parametrize("more", [["file:{}/set"], ["env:TEST_KEY", "--key-id", "rsa"]])
def test_one_token_is_asked_for_and_held_and_told_nobody(
    published, asked, hospital, authority, tmp_path, monkeypatch, capsys, more
):
    (tmp_path / "set").write_text(json.dumps({"keys": [json.loads(jwk(EC, kid="ec"))]}))
    monkeypatch.setenv("TEST_KEY", pem(RSA))
    with serving(hospital) as to:
        command = ["send", str(published), "--predictions", asked["predictions"], "--to", to]
        command += ["--at-once", "2", "--json", "--client", "sender", "--key"]
        assert cli.main([*command, *(part.format(tmp_path) for part in more)]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["sent"] == PATIENTS
    assert len(hospital.transactions) == 3 and len(authority.asked) == 1
    kept = [p.read_text("latin-1") for p in tmp_path.rglob("*") if p.is_file()]
    assert "canary" not in "\n".join([told.out, told.err, *kept])


def test_a_token_that_ended_is_asked_for_again(published, asked, hospital, authority):
    authority.span = 0
    with serving(hospital) as to:
        assert send(str(published), to=to, **asked)["sent"] == PATIENTS
    assert len(authority.asked) == 4  # for the server's own statement, and each transaction


def test_a_token_that_is_taken_back_is_asked_for_again_once(published, asked, hospital, authority):
    hospital.faults = [None, 401, None, 401, 401]
    with serving(hospital) as to:
        with pytest.raises(SourceError, match="it answered 401"):
            send(str(published), to=to, **asked)
        assert len(hospital.transactions) == 2 and len(authority.asked) == 3
        assert send(str(published), to=to, **asked)["sent"] == PATIENTS
    assert len(hospital.transactions) == 3


def test_an_authority_that_refuses_ends_it(published, asked, hospital, authority):
    unknown = {"error": "invalid_client", "error_description": "canary"}
    wrong = [{"access_token": text, "token_type": "bearer"} for text in ("a\nb", "")]
    wrong += [{"token_type": "mac"}, []]
    answers = [(400, unknown, "400: invalid_client"), *((200, one, "200") for one in wrong)]
    with serving(hospital) as to:
        for status, answer, told in answers:
            authority.answers = [(status, answer)]
            with pytest.raises(SourceError, match="no token is given") as caught:
                send(str(published), to=to, **asked)
            assert f"({told})" in str(caught.value) and "canary" not in str(caught.value)


def test_a_token_may_hold_for_ever(published, asked, hospital, authority):
    authority.span = 10**400
    with serving(hospital) as to:
        assert send(str(published), to=to, **asked)["sent"] == PATIENTS
    assert len(authority.asked) == 1


def test_an_authority_that_stays_busy_is_named(published, asked, hospital, authority):
    authority.span, well = 0, authority.told
    authority.told = lambda form: (503, {}) if authority.asked else well(form)
    with serving(hospital) as to, pytest.raises(SourceError, match=r"\(no token\)"):
        send(str(published), to=to, **asked)
    assert not hospital.transactions


def test_an_authority_that_is_busy_is_asked_again(published, asked, hospital, authority):
    authority.span, well = 0, authority.told

    def told(form):
        if len(authority.asked) == 1:
            authority.told = well
            return 503, {}
        return well(form)

    authority.told = told
    with serving(hospital) as to:
        assert send(str(published), to=to, **{**asked, "patience": 10})["sent"] == PATIENTS
    assert authority.told is well


def test_an_authority_is_left_alone_as_long_as_it_asks(published, asked, hospital, authority):
    authority.span, authority.later, well, notes = 0, "2", authority.told, []

    def told(form):
        if len(authority.asked) == 1:
            authority.told = well
            return 429, {}
        return well(form)

    authority.told = told
    with serving(hospital) as to:
        more = {**asked, "patience": 10, "note": notes.append}
        assert send(str(published), to=to, **more)["sent"] == PATIENTS
    assert [note for note in notes if "trying again in 2 s" in note]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (None, "404"),
        ({"token_endpoint": "http://ehr.example.org/token"}, "no https `token_endpoint`"),
        ({"token_endpoint_auth_methods_supported": ["client_secret_basic"]}, "private_key_jwt"),
        ({"token_endpoint_auth_signing_alg_values_supported": ["RS384"]}, "not take ES384"),
    ],
)
def test_a_server_that_lets_nobody_in_so_is_told(
    published, asked, hospital, authority, change, told
):
    hospital.smart = hospital.smart | change if change is not None else None
    with serving(hospital) as to, pytest.raises(SourceError, match=told):
        send(str(published), to=to, **asked)
    assert not authority.asked and not hospital.transactions


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (pem(P256), "another algorithm"),
        (pem(EC), "no identifier"),
        (pem(EC).replace("BSuBBAAi", "BSuBBABj"), "no private key"),  # on a curve of nobody's
        (jwk(EC.public_key(), kid="ec"), "no private key"),
        ("canary", "no private key"),
        ("{", "no private key"),
    ],
)
def test_a_key_that_is_none_is_told_without_its_words(tmp_path, text, told):
    (tmp_path / "key").write_text(text)
    with pytest.raises(UsageError, match=told) as caught:
        Key.read(f"file:{tmp_path / 'key'}")
    assert "canary" not in str(caught.value)
    with pytest.raises(UsageError, match="never written"):
        Key.read(pem(EC))


def test_of_several_keys_the_one_is_taken_that_is_named(tmp_path):
    several = [json.loads(jwk(key, kid=kid)) for key, kid in ((EC, "old"), (RSA, "new"))]
    (tmp_path / "set").write_text(json.dumps({"keys": several}))
    assert Key.read(f"file:{tmp_path / 'set'}", "new").algorithm == "RS384"
    assert Key.read(f"file:{tmp_path / 'set'}", "old").algorithm == "ES384"
    for kid in (None, "other"):
        with pytest.raises(UsageError, match=r"several keys\n.*: new, old$"):
            Key.read(f"file:{tmp_path / 'set'}", kid)


def test_a_key_is_read_however_it_is_laid_down(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", f"\n  {jwk(EC, kid='ec')}\n")
    assert Key.read("env:TEST_KEY").kid == "ec"
    der = EC.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key").write_bytes(der)
    with pytest.raises(UsageError, match="cannot be read"):
        Key.read(f"file:{tmp_path / 'key'}")


@pytest.mark.parametrize("change", [{"token": "env:X"}, {"key": None}, {"client": None}])
def test_a_sender_proves_itself_in_one_way(published, asked, change, monkeypatch):
    monkeypatch.setenv("X", "x")
    with pytest.raises(UsageError, match="proves itself"):
        send(str(published), to="https://ehr.example.org", **{**asked, **change})
