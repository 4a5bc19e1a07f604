"""Tokens of SMART Backend Services: a sender proves itself by a key of its own, and is let in.

The server's ``.well-known/smart-configuration`` names who gives tokens; there the sender shows an
assertion that it signed with ES384 or RS384, for one use and five minutes, and gets a token, which
is held in this process until shortly before it ends. What others answer is never repeated, but for
the codes that OAuth fixes. (SMART App Launch 2.2, "Backend Services"; RFC 7523)
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from clinloom import files
from clinloom.deploy import outbound
from clinloom.errors import SourceError, UsageError
from clinloom.study.cds_hooks import secured

PATH = ".well-known/smart-configuration"
SCOPE = (  # what a transaction of `send` does, and how the patient is found
    "system/RiskAssessment.cus system/Observation.cus system/Provenance.cs system/Device.cs"
    " system/Patient.rs"
)
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LIFETIME = 240  # seconds of an assertion; five minutes are the most
LONGEST = 86400  # seconds for which a token is held, however long it holds
UNTOLD = 60.0  # seconds that a token is held of which it is not told how long it holds
MARGIN = 30.0  # seconds before its end from which a token is used no more; at most half its time
WEAK_RSA = 2048  # bits below which a key signs nothing
MOST = 1 << 20  # bytes of an answer
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # a later try may fare better
OAUTH = frozenset(  # the errors of RFC 6749 5.2
    "invalid_request invalid_client invalid_grant unauthorized_client unsupported_grant_type"
    " invalid_scope".split()
)


@dataclass(frozen=True)
class Key:
    """A private key, the algorithm that it signs with, and its identifier."""

    private: EllipticCurvePrivateKey | RSAPrivateKey
    algorithm: str
    kid: str

    @classmethod
    def read(cls, reference: str, kid: str | None = None) -> Key:
        """The key that ``env:NAME`` or ``file:/PATH`` refers to: PEM, or a JSON Web Key (Set).

        ``kid``: its identifier, where it tells none; of a set's several, which. Raises UsageError.
        """
        text = files.named(reference, where="--key")
        if text == reference:
            mend = "give env:NAME of a variable or file:/PATH of a file that holds it"
            raise UsageError("a key is named, never written", where="--key", mend=mend)
        try:
            private, own = _parsed(text.strip(), kid)
        except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, LookupError):
            mend = "give one private key, as PEM without a password or as a JSON Web Key"
            raise UsageError("it refers to no private key", where="--key", mend=mend) from None
        if isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP384R1):
            algorithm = "ES384"
        elif isinstance(private, RSAPrivateKey) and private.key_size >= WEAK_RSA:
            algorithm = "RS384"
        else:
            mend = f"make one of P-384 (ES384), or of RSA with {WEAK_RSA} bits or more (RS384)"
            raise UsageError("the key signs with another algorithm", where="--key", mend=mend)
        if not (kid or own):
            mend = "give the `kid` under which the server knows its public part"
            raise UsageError("the key has no identifier", where="--key-id", mend=mend)
        return cls(private, algorithm, str(kid or own))


def _parsed(text: str, kid: str | None) -> tuple[Any, str | None]:
    """A private key and its own identifier. Raises what any of the readers does, and UsageError."""
    if not text.startswith("{"):
        return load_pem_private_key(text.encode(), password=None), None
    told = json.loads(text)
    held = [key for key in told.get("keys", [told]) if "d" in key]
    if len(held) > 1:
        named = [key for key in held if kid is not None and key.get("kid") == kid]
        if len(named) != 1:
            names = ", ".join(sorted(str(key["kid"]) for key in held if "kid" in key))
            mend = f"name one of its private keys: {names or 'none has a `kid`'}"
            raise UsageError("it holds several keys", where="--key-id", mend=mend)
        held = named
    [told] = held
    algorithm = {"EC": "ES384", "RSA": "RS384"}[told["kty"]]
    return jwt.PyJWK(told, algorithm=algorithm).key, told.get("kid")


class Tokens:
    """The tokens of one client for one FHIR server, asked for when they are needed."""

    def __init__(self, server: str, *, client: str, key: Key, scope: str = SCOPE):
        self._server, self._client, self._key, self._scope = server, client, key, scope
        self._place: str | None = None
        self._token, self._ends = "", 0.0

    def token(self, until: float) -> str:
        """A token that still holds. ``until``: when it has to be there, by ``time.monotonic``.

        Raises Unreachable where another try may fare better, else SourceError.
        """
        if time.monotonic() >= self._ends:
            if self._place is None:
                self._place = self._found(until)
            begun = time.monotonic()
            self._token, span = self._given(self._place, until)
            self._ends = begun + span - min(MARGIN, span / 2)
        return self._token

    def forget(self) -> None:
        """Ask for another one the next time: the server does not take this one."""
        self._ends = 0.0

    def _found(self, until: float) -> str:
        """Where tokens are given."""
        url, headers = f"{self._server}/{PATH}", {"Accept": "application/json"}
        found = outbound.get(url, where=url, until=until, most=MOST, headers=headers)
        told = _object(found)
        try:
            place = str(told["token_endpoint"])  # to the letter: assertions are made for it
            secured(place.split("?", 1)[0])
        except (KeyError, ValueError, TypeError, AttributeError):
            raise SourceError("it names no https `token_endpoint`", where=url) from None
        for name, ours in (
            ("token_endpoint_auth_methods_supported", "private_key_jwt"),
            ("token_endpoint_auth_signing_alg_values_supported", self._key.algorithm),
        ):
            if isinstance(listed := told.get(name), list) and ours not in listed:
                mend = "ask the site how its backend services prove themselves"
                raise SourceError(f"it does not take {ours} ({name})", where=url, mend=mend)
        return place

    def _given(self, place: str, until: float) -> tuple[str, float]:
        """A new token, and for how many seconds it holds."""
        now = int(time.time())
        claims: dict[str, Any] = {"iat": now, "exp": now + LIFETIME, "jti": str(uuid.uuid4())}
        claims |= {"iss": self._client, "sub": self._client, "aud": place}
        key = self._key
        signed = jwt.encode(claims, key.private, key.algorithm, headers={"kid": key.kid})
        asked = {"grant_type": "client_credentials", "scope": self._scope}
        asked |= {"client_assertion_type": ASSERTION, "client_assertion": signed}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        headers["Accept"] = "application/json"
        data = urlencode(asked).encode()
        reply = outbound.post(place, data, where=place, until=until, most=MOST, headers=headers)
        told = _object(reply.body)
        if reply.status in PASSING:
            said = f"it answered {reply.status}"
            raise outbound.Unreachable(said, where=place, later=reply.later)
        token, kind, span = (told.get(n) for n in ("access_token", "token_type", "expires_in"))
        if reply.status == 200 and isinstance(token, str) and str(kind).lower() == "bearer":
            if token and token.isascii() and token.isprintable():  # it becomes part of a header
                return token, min(span, LONGEST) if isinstance(span, (int, float)) else UNTOLD
        code = told.get("error")
        reason = f": {code}" if isinstance(code, str) and code in OAUTH else ""
        mend = "does the site know --client, its public key by --key-id, and this --scope?"
        raise SourceError(f"no token is given ({reply.status}{reason})", where=place, mend=mend)


def _object(body: bytes) -> dict[str, Any]:
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return told if isinstance(told, dict) else {}
