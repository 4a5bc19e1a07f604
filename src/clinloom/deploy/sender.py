"""Sending a scoring to a FHIR server: bounded transactions, tries, refusals, a receipt.

A transaction that may not have arrived is sent again, which changes nothing (see ``writeback``).
One that the server refuses is sent in halves, until what it refuses stands alone; that is kept in a
table ``rejected`` with the reason. The receipt, replaced after each transaction that was answered,
says up to which byte of the file all was: a command that is given again goes on from there.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from clinloom import files
from clinloom.deploy import outbound, writeback
from clinloom.deploy.bundle import Bundle
from clinloom.deploy.writeback import BY, Unsendable
from clinloom.errors import MissingDependency, SourceError, UsageError, instead
from clinloom.files import Address
from clinloom.guard import audit
from clinloom.store import TableWriter
from clinloom.study.cds_hooks import secured
from clinloom.tables import REJECTED

if TYPE_CHECKING:
    from clinloom.deploy.smart import Tokens

FORMAT = "application/fhir+json"
MOST = 64 << 20  # bytes of an answer
LINE = 8 << 20  # bytes of a line
PIECE = 1 << 20  # bytes that are read at once
SECONDS = 120.0  # in which a transaction is answered
FIRST, LONGEST = 1.0, 60.0  # seconds between tries, where the server asks for none
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})  # a later try may fare better
STRANGER = 401  # of a token that ended, or was taken back
CONFLICT, CONFLICTS = 409, 3  # with what others write meanwhile: this often
FAULT, FAULTS = 500, 3  # of a part of what got nothing else for as long as it was tried: this often
NOWHERE = frozenset({404, 410})  # without an OperationOutcome: of no FHIR server
REFUSED = frozenset({400, 404, 409, 410, 412, 413, 422})  # of what was sent, not of who sends
ISSUES = frozenset(  # the codes of OperationOutcome.issue (R4, value set issue-type)
    "invalid structure required value invariant security login unknown expired forbidden suppressed"
    " processing not-supported duplicate multiple-matches not-found deleted too-long code-invalid"
    " extension too-costly business-rule conflict transient lock-error no-store exception timeout"
    " incomplete throttled informational".split()
)

UNKNOWN = "unknown"


class Line(NamedTuple):
    """A line of the file: its number from 1, and the assessment, as the server is to take it."""

    number: int
    told: dict[str, Any]


@dataclass
class Receipt:
    """How far a file was sent: ``bytes`` and ``lines`` of it were answered, with what came of them.

    ``file``: its version; ``by``: how its patients are named.
    """

    to: str
    bundle: str
    file: str
    by: str
    bytes: int = 0
    lines: int = 0
    sent: int = 0
    rejected: int = 0
    done: bool = False


def send(
    bundle: str,
    *,
    predictions: str,
    to: str,
    by: str = "identifier",
    token: str | None = None,
    client: str | None = None,
    key: str | None = None,
    key_id: str | None = None,
    scope: str | None = None,
    at_once: int = 50,
    patience: float = 300.0,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Send what ``score --as fhir`` left to the FHIR server ``to``, and say what came of it.

    ``at_once``: predictions in a transaction, at most; ``patience``: seconds for which tries of one
    transaction go on; ``token``: ``env:NAME`` or ``file:/PATH`` of what the server asks for; or
    ``client`` and ``key`` (with ``key_id`` and ``scope``), by which tokens are asked for as a SMART
    backend service (:mod:`clinloom.deploy.smart`). What was sent stands in ``<predictions>.sent``:
    the receipt, and the table ``rejected``. Raises UsageError, StoreError, MissingDependency, and
    SourceError where the server can no longer be reached or refuses the sender: given again, the
    command goes on.
    """
    if at_once < 1 or patience < 0:
        raise UsageError("--at-once is at least 1, and --patience is no less than 0")
    if by not in BY:
        raise UsageError(f"patients are not known by '{by}'", where="--by", mend=instead(by, BY))
    loaded, source = Bundle.load(bundle), files.address(predictions)
    server = _Server(to, token, patience, note)
    if client or key or key_id or scope:
        if token is not None or not client or not key:
            mend = "give --token alone, or --client with --key"
            raise UsageError("that is not how a sender proves itself", where="--client", mend=mend)
        server.tokens = _tokens(server.url, client, key, key_id, scope)
    server.look()
    sending = _Sending(loaded, source, server, by)
    try:
        sending.all(at_once, note)
    finally:
        told = {"bundle": loaded.hash, "rejected": sending.receipt.rejected}
        line = audit.line(action="send", what=server.url, rows=sending.receipt.sent, **told)
        trail = source.parent / f"{source.name}.audit"
        files.write(trail / f"audit-sent-{uuid.uuid4().hex[:8]}.jsonl", f"{line}\n".encode())
    receipt = sending.receipt
    told = {"sent": receipt.sent, "rejected": receipt.rejected, "receipt": str(sending.place)}
    return {"to": server.url, **told}


def _tokens(url: str, client: str, key: str, key_id: str | None, scope: str | None) -> Tokens:
    try:
        from clinloom.deploy.smart import SCOPE, Key, Tokens
    except ImportError as error:
        mend = "pip install 'clinloom[serve]'"
        raise MissingDependency(f"signing needs {error.name}", mend=mend) from None
    return Tokens(url, client=client, key=Key.read(key, key_id), scope=scope or SCOPE)


class _Server:
    """The server, and how often it is asked. ``tokens``: where those are asked for."""

    tokens: Tokens | None = None

    def __init__(self, to: str, token: str | None, patience: float, note: Callable[[str], None]):
        try:
            self.url = secured(to)
        except ValueError as error:
            raise UsageError(f"the server {error}", where="--to") from None
        self._headers = {"Content-Type": FORMAT, "Accept": FORMAT}
        if token is not None:
            found = files.named(token, where="--token")
            if found == token or not found:
                mend = "give env:NAME of a variable or file:/PATH of a file that holds it"
                raise UsageError("a token is named, never written", where="--token", mend=mend)
            self._headers["Authorization"] = f"Bearer {found}"
        self._patience, self._note = patience, note

    def _headed(self, until: float) -> dict[str, str]:
        """The headers, with a token that holds. Raises SourceError."""
        if self.tokens is None:
            return self._headers
        return {**self._headers, "Authorization": f"Bearer {self.tokens.token(until)}"}

    def look(self) -> None:
        """Raise SourceError where no FHIR R4 server is there."""
        url, until = f"{self.url}/metadata", time.monotonic() + SECONDS
        headers = self._headed(until)
        found = outbound.get(url, where=self.url, until=until, most=MOST, headers=headers)
        try:
            told = msgspec.json.decode(found)
            version = told["fhirVersion"] if told["resourceType"] == "CapabilityStatement" else ""
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
            version = ""
        if not str(version).startswith("4."):
            mend = "give the base address, below which /metadata is"
            raise SourceError("no FHIR R4 server is there", where=self.url, mend=mend)

    def takes(self, told: dict[str, Any], *, part: bool = False) -> str | None:
        """Send a transaction until it is answered: None, or the reason why it is refused.

        One that only gets FAULT is refused; as ``part`` of such a one after FAULTS tries.
        """
        data, entries = msgspec.json.encode(told), len(told["entry"])
        end, wait = time.monotonic() + self._patience, FIRST
        conflicts = faults = 0
        renewed = False
        while True:
            status, later, fault = "no token", None, None
            try:
                until = time.monotonic() + SECONDS
                headers, status = self._headed(until), "no answer"
                reply = outbound.post(
                    self.url, data, where=self.url, until=until, most=MOST, headers=headers
                )
                if reply.status in (200, 201):
                    self._check(reply.body, entries)
                    return None
                status, later = str(reply.status), reply.later
                conflicts += reply.status == CONFLICT
                again = reply.status == CONFLICT and conflicts < CONFLICTS
                if reply.status in REFUSED and not again:
                    issue = _issue(reply.body)
                    if reply.status in NOWHERE and issue is None:
                        raise self._lost(f"it answered {status}, as no FHIR server does")
                    return f"{status} {issue or UNKNOWN}"
                if reply.status == STRANGER and self.tokens and not renewed:
                    renewed = True
                    self.tokens.forget()
                    continue
                if reply.status not in AGAIN:
                    raise self._lost(f"it answered {status}")
                if reply.status == FAULT:
                    faults, fault = faults + 1, f"{status} {_issue(reply.body) or UNKNOWN}"
            except outbound.Unreachable as error:
                later = error.later
            pause = max(later or 0.0, wait)
            late = time.monotonic() + pause > end
            if fault and (late or (part and faults >= FAULTS)):
                return fault
            if late:
                raise self.still(status)
            self._note(f"{self.url}: {status}; trying again in {pause:.0f} s")
            time.sleep(pause)
            wait = min(wait * 2, LONGEST)

    def _check(self, body: bytes, entries: int) -> None:
        """Raise SourceError where the answer does not say that each entry was taken."""
        try:
            told = msgspec.json.decode(body)
            taken = [entry["response"]["status"][0] for entry in told["entry"]]
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError):
            taken = []
        if taken != ["2"] * entries:
            raise self._lost("its answer does not tell that it took each part of a transaction")

    def still(self, status: str) -> SourceError:
        """What is raised where tries come to an end."""
        return self._lost(f"it still could not take what was sent ({status})")

    def _lost(self, why: str) -> SourceError:
        mend = "what was answered stands in the receipt: the same command goes on from there"
        return SourceError(why, where=self.url, mend=mend)


class _Sending:
    """A file on its way."""

    def __init__(self, bundle: Bundle, source: Address, server: _Server, by: str):
        self._bundle, self._source, self._server, self._by = bundle, source, server, by
        self._model = writeback.device(bundle)
        version = files.version(source)
        if version is None:
            mend = "clinloom score BUNDLE --as fhir --out FILE"
            raise UsageError("there is no such file", where=str(source), mend=mend)
        name = hashlib.sha256(server.url.encode()).hexdigest()[:12]
        self._room = source.parent / f"{source.name}.sent" / name
        self.place = self._room / "receipt.json"
        fresh = Receipt(server.url, bundle.hash, version, by)
        self.receipt = _kept(self.place, fresh)
        for entry in files.listed(self._room / "rejected"):
            if entry.address.name >= _part(self.receipt.lines):  # of what was not noted
                files.remove(entry.address)

    def all(self, at_once: int, note: Callable[[str], None]) -> None:
        """Send what was not answered yet."""
        if self.receipt.lines:
            note(f"going on after line {self.receipt.lines:,}")
        held: list[Line] = []
        lost: list[dict[str, Any]] = []
        number, end = done = self.receipt.lines, self.receipt.bytes
        for number, end, text in _lines(self._source, *done):
            try:
                told = writeback.parsed(text, self._bundle.hash)
                held.append(Line(number, writeback.named(told, self._by)))
            except Unsendable as error:
                if str(error) == "of_another_bundle":
                    mend = "give the bundle that the file was scored with"
                    where = f"{self._source}, line {number}"
                    raise UsageError("it is of another bundle", where=where, mend=mend) from None
                lost.append(self._row(number, str(error)))
            if len(held) + len(lost) == at_once:
                self._settle(held, lost, number, end)
                held, lost = [], []
                note(f"{number:,} lines, {self.receipt.rejected:,} rejected")
        self._settle(held, lost, number, end, done=True)

    def _settle(
        self,
        held: Sequence[Line],
        lost: Sequence[dict[str, Any]],
        number: int,
        end: int,
        *,
        done: bool = False,
    ) -> None:
        """Send some lines and note that all up to here was answered."""
        refused = self._refused(held)
        rows = sorted([*lost, *refused], key=lambda row: int(row["position"]))
        receipt = self.receipt
        if rows:
            file = self._room / "rejected" / _part(receipt.lines)
            files.folder(file.parent)
            with TableWriter(file, REJECTED) as writer:
                writer.write(REJECTED.rows(rows))
        receipt.sent += len(held) - len(refused)
        receipt.rejected += len(rows)
        receipt.lines, receipt.bytes, receipt.done = number, end, done
        files.folder(self._room)
        files.write(self.place, json.dumps(asdict(receipt), indent=1).encode())

    def _refused(self, held: Sequence[Line]) -> list[dict[str, Any]]:
        """Send them; rows of those that are refused.

        Raises SourceError where the server fails at all of them: then it is the server.
        """
        found = list(self._parted(held)) if held else []
        failed = [row for row in found if row["reason"].startswith(str(FAULT))]
        if failed and len(failed) == len(held) and not (len(held) == 1 and self._sound()):
            raise self._server.still(str(FAULT))
        return found

    def _sound(self) -> bool:
        """Whether the server takes the model alone."""
        told = writeback.transaction([], self._model, dt.datetime.now(dt.UTC))
        return self._server.takes(told, part=True) is None

    def _parted(self, held: Sequence[Line], *, part: bool = False) -> Iterator[dict[str, Any]]:
        """Send them, in halves where the server refuses them together."""
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        told = writeback.transaction([line.told for line in held], self._model, now)
        reason = self._server.takes(told, part=part)
        if reason is None:
            return
        if len(held) == 1:
            yield self._row(held[0].number, reason, held[0].told["identifier"][0]["value"])
            return
        half, part = len(held) // 2, part or reason.startswith(str(FAULT))
        yield from self._parted(held[:half], part=part)
        yield from self._parted(held[half:], part=part)

    def _row(self, number: int, reason: str, record: str | None = None) -> dict[str, Any]:
        """A row of REJECTED; ``record``: the key of the prediction."""
        told = {"record_id": record, "stage": "send", "reason": reason, "position": number}
        return {"source": self._server.url, "file": str(self._source), **told}


def _part(lines: int) -> str:
    """The name of a part of `rejected`, of lines after these."""
    return f"part-{lines:012}.parquet"


def _kept(place: Address, fresh: Receipt) -> Receipt:
    """The receipt of an earlier sending of the same file, bundle and server, else a fresh one."""
    try:
        told = json.loads(files.read(place))
        found = Receipt(**{field.name: told[field.name] for field in fields(Receipt)})
    except (OSError, ValueError, KeyError, TypeError):
        return fresh
    same = ("to", "bundle", "file", "by")
    return found if all(getattr(found, n) == getattr(fresh, n) for n in same) else fresh


def _lines(source: Address, number: int, begin: int) -> Iterator[tuple[int, int, bytes]]:
    """Number, end and text of each line after ``number`` lines, which end at the byte ``begin``."""
    rest, at = b"", begin
    with files.random(source) as file:
        file.seek(begin)
        while piece := file.read(PIECE):
            *whole, rest = (rest + piece).split(b"\n")
            for text in whole:
                number, at = number + 1, at + len(text) + 1
                yield number, at, text
            if len(rest) > LINE:
                raise SourceError("a line is too long", where=f"{source}, line {number + 1}")
    if rest:
        yield number + 1, at + len(rest), rest


def _issue(body: bytes) -> str | None:
    """The code of the first issue of an OperationOutcome: of a fixed list, nobody's value.

    None where there is none.
    """
    try:
        code = msgspec.json.decode(body)["issue"][0]["code"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError):
        return None
    return code if isinstance(code, str) and code in ISSUES else UNKNOWN
