"""Who asks: the signed tokens of CDS clients (CDS Hooks 2.0.1, "Trusting CDS Clients").

A token is believed where a client that the study names issued it, signed it with ES384 or RS384 by
a key of that client's set, for exactly this endpoint, for five minutes at most, and shows it for
the first time. Keys come from the place that the study tells, never from one that the token names.
Clocks may differ by 30 seconds.

Tokens that were seen are held in this process alone, for as long as they could be shown again:
several processes of one service each believe a token once.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from clinloom import files
from clinloom.deploy import outbound
from clinloom.errors import ClinloomError
from clinloom.study.cds_hooks import Client

ALGORITHMS = {"ES384": "EC", "RS384": "RSA"}
SKEW = 30.0  # seconds by which clocks may differ
LIFETIME = 300.0  # seconds that a token may live
LARGEST = 16_384  # characters of a token
SEEN = 100_000  # tokens that are held; beyond that nobody is believed until some ran out
FRESH, STALE = 3600.0, 86_400.0  # seconds: how old keys may be; and where no newer are to be had
AGAIN = 60.0  # seconds until they are asked for again, whatever key is named
KEYS_BYTES, KEYS_SECONDS = 1 << 20, 5.0
WEAK_RSA = 2048  # bits below which a key is refused
REASONS = {
    "no_token": "there is no bearer token",
    "malformed": "the token is malformed",
    "algorithm": "a token is signed with ES384 or RS384",
    "issuer": "its issuer is not known here",
    "jku": "its jku is not the one agreed",
    "key": "no key of its issuer has its kid and fits its algorithm",
    "keys_unreachable": "the keys of its issuer cannot be read",
    "signature": "its signature does not verify",
    "audience": "it was made for another endpoint",
    "claims": "it lacks exp, iat or jti, or one is no number or text",
    "expired": "it has expired",
    "early": "it comes from the future",
    "lifetime": "it lives longer than five minutes",
    "replayed": "it was shown before",
    "crowded": "too many tokens at once",
}


class Denied(ClinloomError):
    """A request whose sender is not believed; ``reason``: one of REASONS."""

    def __init__(self, reason: str):
        super().__init__(REASONS[reason])
        self.reason = reason


@dataclass
class Keys:
    """A client's keys by their identifiers, read when first needed and when they are old."""

    client: Client
    now: Callable[[], float] = time.monotonic
    _held: dict[str, dict[str, Any]] = field(default_factory=dict)
    _read: float = -math.inf
    _asked: float = -math.inf
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def key(self, kid: str) -> dict[str, Any] | None:
        """The key of that identifier. Raises Denied where the keys cannot be read."""
        with self._lock:
            age, since = self.now() - self._read, self.now() - self._asked
            if (age > FRESH or kid not in self._held) and since > AGAIN:
                self._asked = self.now()
                self._fill()
            elif self._read == -math.inf:
                raise Denied("keys_unreachable")
            return self._held.get(kid)

    def _fill(self) -> None:
        place = self.client.keys
        try:
            if place.startswith(("http:", "https:")):
                until = time.monotonic() + KEYS_SECONDS
                data = outbound.get(place, where="keys", until=until, most=KEYS_BYTES)
            else:
                data = files.read(place)
            found = json.loads(data)
            listed = [key for key in found["keys"] if isinstance(key, dict)]
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ClinloomError):
            if self.now() - self._read > STALE:
                self._held, self._read = {}, -math.inf
                raise Denied("keys_unreachable") from None
            return
        kids = [str(key.get("kid")) for key in listed]
        self._held = {
            kid: key for kid, key in zip(kids, listed, strict=True) if kids.count(kid) == 1
        }
        self._read = self.now()


class Verifier:
    """Who is believed: ``clients`` by their tokens. ``now``: seconds since 1970."""

    def __init__(self, clients: Sequence[Client], *, now: Callable[[], float] = time.time):
        self._clients = {client.issuer: client for client in clients}
        self._keys = {client.issuer: Keys(client) for client in clients}
        self._now = now
        self._seen: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def check(self, authorization: str | None, endpoint: str) -> Client:
        """The client whose token the header ``Authorization`` holds, made for ``endpoint``.

        Raises Denied.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Denied("no_token")
        if len(token) > LARGEST:
            raise Denied("malformed")
        client, key, algorithm = self._signer(token)
        claims = _verified(token, key, algorithm)
        if claims.get("iss") != client.issuer:
            raise Denied("issuer")
        if claims.get("aud") not in (endpoint, [endpoint]):
            raise Denied("audience")
        ends = self._timely(claims)
        self._once((client.issuer, claims["jti"]), ends)
        return client

    def _signer(self, token: str) -> tuple[Client, Any, str]:
        """Who says to have signed it, and that one's key."""
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Denied("malformed") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise Denied("algorithm")
        if not isinstance(kid, str) or str(header.get("typ", "")).upper() != "JWT":
            raise Denied("malformed")
        if "crit" in header:
            raise Denied("malformed")
        issuer = claims.get("iss")
        client = self._clients.get(issuer) if isinstance(issuer, str) else None
        if client is None:
            raise Denied("issuer")
        if "jku" in header and header["jku"] != client.named:
            raise Denied("jku")
        return client, _public(self._keys[client.issuer].key(kid), algorithm), algorithm

    def _timely(self, claims: dict[str, Any]) -> float:
        """Until when it could be shown again. Raises Denied where that is not now."""
        begins, ends, jti = (claims.get(name) for name in ("iat", "exp", "jti"))
        if not isinstance(jti, str) or not 0 < len(jti) <= 256:
            raise Denied("claims")
        begins, ends = _number(begins), _number(ends)
        now = self._now()
        if ends + SKEW <= now:
            raise Denied("expired")
        if begins - SKEW > now or _number(claims.get("nbf", begins)) - SKEW > now:
            raise Denied("early")
        if not 0 < ends - begins <= LIFETIME:
            raise Denied("lifetime")
        return ends + SKEW

    def _once(self, token: tuple[str, str], ends: float) -> None:
        """Remember a token. Raises Denied where it was shown before."""
        with self._lock:
            now = self._now()
            if self._seen.get(token, -math.inf) > now:
                raise Denied("replayed")
            if len(self._seen) >= SEEN:
                self._seen = {seen: until for seen, until in self._seen.items() if until > now}
                if len(self._seen) >= SEEN:
                    raise Denied("crowded")
            self._seen[token] = ends


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Denied("claims")
    return float(value)


def _public(key: dict[str, Any] | None, algorithm: str) -> Any:
    """A public key that fits the algorithm. Raises Denied for another."""
    if key is None or key.get("kty") != ALGORITHMS[algorithm]:
        raise Denied("key")
    if key.get("use", "sig") != "sig" or key.get("alg", algorithm) != algorithm:
        raise Denied("key")
    public: dict[str, Any] = {
        name: key[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in key
    }
    try:
        found = jwt.PyJWK(public, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        raise Denied("key") from None
    fits = (
        found.curve.name == "secp384r1"
        if isinstance(found, EllipticCurvePublicKey)
        else isinstance(found, RSAPublicKey) and found.key_size >= WEAK_RSA
    )
    if not fits:
        raise Denied("key")
    return found


def _verified(token: str, key: Any, algorithm: str) -> dict[str, Any]:
    """The claims of a token whose signature verifies; what they say is asked elsewhere."""
    unasked = dict.fromkeys(
        ("verify_aud", "verify_exp", "verify_iat", "verify_nbf", "verify_sub", "verify_jti"), False
    )
    try:
        return jwt.decode(token, key, algorithms=[algorithm], options=unasked)  # type: ignore[arg-type]
    except jwt.InvalidSignatureError:
        raise Denied("signature") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise Denied("malformed") from None
