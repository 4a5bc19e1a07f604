"""Who is believed: a good token, and every way in which a token is none."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from clinloom.deploy import auth
from clinloom.deploy.auth import REASONS, Denied, Keys, Verifier
from clinloom.study.cds_hooks import Client

ISSUER, ENDPOINT = "https://ehr.example.org", "https://cds.example.org/cds-services/risk"
EC = ec.generate_private_key(ec.SECP384R1())
OTHER = ec.generate_private_key(ec.SECP384R1())
P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505  it must be refused
NOW = 1_800_000_000.0


def jwk(key, kid, **more):
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more}


SECRET = base64.urlsafe_b64encode(b"s" * 48).decode()
KEYS = {
    "keys": [
        jwk(EC, "ec", use="sig", alg="ES384"),
        jwk(RSA, "rsa"),
        jwk(P256, "p256"),
        jwk(WEAK, "weak"),
        jwk(EC, "enc", use="enc"),
        jwk(EC, "es256", alg="ES256"),
        {"kty": "oct", "k": SECRET, "kid": "oct"},
        jwk(EC, "twice"),
        jwk(OTHER, "twice"),
        {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA", "kid": "broken"},
    ]
}


@pytest.fixture
def place(tmp_path):
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(KEYS))
    return str(file)


@pytest.fixture
def verifier(place):
    clients = [Client(issuer=ISSUER, keys=place), Client(issuer="https://b.example", keys=place)]
    return Verifier(clients, now=lambda: NOW)


def token(key=EC, algorithm="ES384", *, kid="ec", header=None, **claims):
    told = {"iss": ISSUER, "aud": ENDPOINT, "iat": int(NOW), "exp": int(NOW) + 300, "jti": "1"}
    told = {k: v for k, v in {**told, **claims}.items() if v is not ...}
    head = {k: v for k, v in {"kid": kid, **(header or {})}.items() if v is not ...}
    return jwt.encode(told, key, algorithm=algorithm, headers=head)


def denied(verifier, authorization, endpoint=ENDPOINT):
    with pytest.raises(Denied) as caught:
        verifier.check(authorization, endpoint)
    assert caught.value.reason in REASONS
    return caught.value.reason


@pytest.mark.parametrize("audience", [ENDPOINT, [ENDPOINT]])
@pytest.mark.parametrize(("key", "algorithm", "kid"), [(EC, "ES384", "ec"), (RSA, "RS384", "rsa")])
def test_a_good_token_is_believed_once(verifier, key, algorithm, kid, audience):
    given = f"Bearer {token(key, algorithm, kid=kid, aud=audience)}"
    assert verifier.check(given, ENDPOINT).issuer == ISSUER
    assert denied(verifier, given) == "replayed"


def unsigned(algorithm, kid="ec", **more):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    told = {"iss": ISSUER, "aud": ENDPOINT, "iat": NOW, "exp": NOW + 300, "jti": "1", **more}
    return f"{part({'alg': algorithm, 'typ': 'JWT', 'kid': kid})}.{part(told)}."


BAD = {  # what is wrong with it: the reason, and the token
    "alg none": ("algorithm", lambda: unsigned("none")),
    "alg None": ("algorithm", lambda: unsigned("None")),
    "no alg": ("algorithm", lambda: unsigned(None)),
    "HS256": ("algorithm", lambda: token(b"s" * 48, "HS256", kid="oct")),
    "HS384": ("algorithm", lambda: token(b"s" * 48, "HS384", kid="ec")),
    "HS512": ("algorithm", lambda: token(b"s" * 64, "HS512", kid="ec")),
    "ES256": ("algorithm", lambda: token(P256, "ES256", kid="p256")),
    "RS256": ("algorithm", lambda: token(RSA, "RS256", kid="rsa")),
    "PS384": ("algorithm", lambda: token(RSA, "PS384", kid="rsa")),
    "an empty signature": ("signature", lambda: unsigned("ES384")),
    "another's key": ("signature", lambda: token(OTHER)),
    "an algorithm of another key": ("key", lambda: token(RSA, "RS384", kid="ec")),
    "an EC key on another curve": ("key", lambda: token(EC, kid="p256")),
    "a short RSA key": ("key", lambda: token(RSA, "RS384", kid="weak")),
    "a key for encryption": ("key", lambda: token(kid="enc")),
    "a key for another algorithm": ("key", lambda: token(kid="es256")),
    "a symmetric key": ("key", lambda: token(kid="oct")),
    "a broken key": ("key", lambda: token(kid="broken")),
    "two keys of one kid": ("key", lambda: token(kid="twice")),
    "an unknown kid": ("key", lambda: token(kid="new")),
    "no kid": ("malformed", lambda: token(kid=...)),
    "a kid that is no text": ("malformed", lambda: unsigned("ES384", kid=5)),
    "a crit header": ("malformed", lambda: token(header={"crit": ["x"], "x": 1})),
    "typ at+jwt": ("malformed", lambda: token(header={"typ": "at+jwt"})),
    "another issuer": ("issuer", lambda: token(iss="https://evil.example")),
    "a known issuer that is not told": ("issuer", lambda: token(iss=...)),
    "an issuer with a slash more": ("issuer", lambda: token(iss=ISSUER + "/")),
    "an issuer that is no text": ("issuer", lambda: unsigned("ES384", iss=["x"])),
    "a jku of its own": ("jku", lambda: token(header={"jku": "https://evil.example/jwks"})),
    "the audience of the list": ("audience", lambda: token(aud=ENDPOINT.rsplit("/", 1)[0])),
    "the issuer as audience": ("audience", lambda: token(aud="https://cds.example.org")),
    "several audiences": ("audience", lambda: token(aud=[ENDPOINT, "https://x.example"])),
    "an audience with a slash more": ("audience", lambda: token(aud=ENDPOINT + "/")),
    "no audience": ("audience", lambda: token(aud=...)),
    "no exp": ("claims", lambda: token(exp=...)),
    "no iat": ("claims", lambda: token(iat=...)),
    "no jti": ("claims", lambda: token(jti=...)),
    "an empty jti": ("claims", lambda: token(jti="")),
    "a long jti": ("claims", lambda: token(jti="x" * 257)),
    "an exp that is a text": ("claims", lambda: token(exp=str(int(NOW) + 9))),
    "an iat that is true": ("claims", lambda: token(iat=True)),
    "expired": ("expired", lambda: token(iat=int(NOW) - 300, exp=int(NOW) - 31)),
    "not yet": ("early", lambda: token(iat=int(NOW) + 31, exp=int(NOW) + 60)),
    "nbf to come": ("early", lambda: token(nbf=int(NOW) + 31)),
    "an hour long": ("lifetime", lambda: token(exp=int(NOW) + 3600)),
    "five minutes and one": ("lifetime", lambda: token(exp=int(NOW) + 301)),
    "ended before it began": ("lifetime", lambda: token(iat=int(NOW) + 20, exp=int(NOW) + 10)),
    "no token at all": ("malformed", lambda: "x.y.z"),
    "a JWE": ("malformed", lambda: "a.b.c.d.e"),
    "too long": ("malformed", lambda: token(more="x" * 20_000)),
    "deep": ("malformed", lambda: "[" * 3000 + ".e30.x"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_token_is_denied_with_its_reason(verifier, what):
    reason, make = BAD[what]
    assert denied(verifier, f"Bearer {make()}") == reason


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer ", "Basic abc", "token"])
def test_without_a_bearer_token_nobody_is_believed(verifier, given):
    assert denied(verifier, given) == "no_token"


def test_a_changed_claim_breaks_the_signature(verifier):
    head, body, sign = token().split(".")
    other = token(jti="2").split(".")[1]
    assert body != other
    assert denied(verifier, f"Bearer {head}.{other}.{sign}") == "signature"


def test_one_clients_key_does_not_sign_for_another(tmp_path, place):
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps({"keys": [jwk(OTHER, "ec")]}))
    clients = [Client(issuer=ISSUER, keys=place), Client(issuer="https://b", keys=str(theirs))]
    made = Verifier(clients, now=lambda: NOW)
    assert denied(made, f"Bearer {token(OTHER)}") == "signature"
    assert made.check(f"Bearer {token(OTHER, iss='https://b')}", ENDPOINT).issuer == "https://b"


def test_the_same_jti_of_two_clients_is_no_replay_and_a_denied_token_is_not_remembered(verifier):
    denied(verifier, f"Bearer {token(OTHER)}")
    for issuer in (ISSUER, "https://b.example"):
        assert verifier.check(f"Bearer {token(iss=issuer)}", ENDPOINT).issuer == issuer


def test_clocks_may_differ_by_half_a_minute(verifier):
    late = token(iat=int(NOW) - 320, exp=int(NOW) - 29)
    soon = token(iat=int(NOW) + 29, exp=int(NOW) + 329, jti="2")
    for given in (late, soon):
        assert verifier.check(f"Bearer {given}", ENDPOINT)


def test_seen_tokens_are_held_until_they_run_out_and_never_more_than_so_many(place, monkeypatch):
    clock = [NOW]
    made = Verifier([Client(issuer=ISSUER, keys=place)], now=lambda: clock[0])
    monkeypatch.setattr(auth, "SEEN", 3)
    for jti in "abc":
        made.check(f"Bearer {token(jti=jti)}", ENDPOINT)
    assert denied(made, f"Bearer {token(jti='d')}") == "crowded"  # rather than believe a replay
    clock[0] += 331
    more = {"iat": int(clock[0]), "exp": int(clock[0]) + 60}
    assert made.check(f"Bearer {token(jti='d', **more)}", ENDPOINT)
    assert denied(made, f"Bearer {token(jti='a')}") == "expired"


def test_a_replay_at_once_is_believed_once(verifier):
    given, found = f"Bearer {token()}", []
    gate = threading.Barrier(8)

    def ask():
        gate.wait()
        try:
            found.append(verifier.check(given, ENDPOINT).issuer)
        except Denied as error:
            found.append(error.reason)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted([ISSUER, *["replayed"] * 7])


@pytest.fixture
def server():
    """Answers with ``server.answer`` (status, headers, bytes), and counts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            status, headers, body = self.server.answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.answer = [], (200, {}, json.dumps(KEYS).encode())
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{made.server_port}"
    yield made
    made.shutdown()
    made.server_close()


def test_fetched_keys_are_cached_and_an_unknown_key_asks_again_but_not_often(server):
    clock = [0.0]
    client = Client(issuer=ISSUER, keys=f"{server.url}/jwks")
    keys = Keys(client, now=lambda: clock[0])
    assert keys.key("ec")["kid"] == "ec" and keys.key("rsa")["kid"] == "rsa"
    assert keys.key("new") is None and len(server.asked) == 1
    rotated = {"keys": [jwk(OTHER, "new")]}
    server.answer = (200, {}, json.dumps(rotated).encode())
    clock[0] = 61
    assert keys.key("new")["kid"] == "new" and len(server.asked) == 2
    assert keys.key("ec") is None and len(server.asked) == 2  # it was taken back
    server.answer = (500, {}, b"")
    clock[0] = 4000
    assert keys.key("new")["kid"] == "new" and len(server.asked) == 3  # old, for a day
    clock[0] = 100_000
    with pytest.raises(Denied, match="cannot be read"):
        keys.key("new")


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}, b""),
        (200, {}, b"no JSON"),
        (200, {}, b"[]"),
        (200, {}, b'{"keys": 1}'),
        (200, {}, b'{"keys": [' + b" " * (2 << 20) + b"]}"),
        (302, {"Location": "/other"}, b""),
    ],
    ids=["error", "no JSON", "no set", "no list", "too large", "a redirect"],
)
def test_keys_that_cannot_be_read_let_nobody_in(server, answer):
    server.answer = answer
    made = Verifier([Client(issuer=ISSUER, keys=f"{server.url}/jwks")], now=lambda: NOW)
    for _ in range(2):
        assert denied(made, f"Bearer {token()}") == "keys_unreachable"
    assert server.asked == ["/jwks"]


def test_the_url_that_a_token_names_is_never_asked(server, place):
    made = Verifier([Client(issuer=ISSUER, keys=place)], now=lambda: NOW)
    given = token(header={"jku": f"{server.url}/evil"})
    assert denied(made, f"Bearer {given}") == "jku" and server.asked == []
    agreed = Client(issuer=ISSUER, keys=place, jku=f"{server.url}/evil")
    made = Verifier([agreed], now=lambda: NOW)
    assert made.check(f"Bearer {given}", ENDPOINT) == agreed and server.asked == []


def test_a_token_made_now_is_believed_by_the_real_clock(place):
    now = int(time.time())
    given = token(iat=now, exp=now + 60)
    assert Verifier([Client(issuer=ISSUER, keys=place)]).check(f"Bearer {given}", ENDPOINT)


def test_no_reason_tells_the_token(verifier):
    given = token(iss="https://evil.example/secret")
    with pytest.raises(Denied) as caught:
        verifier.check(f"Bearer {given}", ENDPOINT)
    assert "secret" not in str(caught.value) and given not in str(caught.value)
