"""Faults of tasks: what may pass is left to Spark, which tries again; the rest is told as ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

from clinloom import errors
from clinloom.errors import ClinloomError, StoreError
from clinloom.store import disk_full

_MARK = re.compile(r"clinloom-fault(\[.*?\])clinloom-end", re.DOTALL)
FULL = "No space left on device"


class Passing(RuntimeError):
    """A fault of a store or network that another attempt may not meet."""


def lasting(error: BaseException) -> str | None:
    """A fault that another attempt would meet again, as text for a receipt; None for another."""
    if disk_full(error):
        return json.dumps(["OSError", FULL, None, None])
    if isinstance(error, ClinloomError):
        return json.dumps([type(error).__name__, error.message, error.where, error.mend])
    return None


def passing(error: OSError) -> Passing:
    """A fault for Spark to try again; its text is found again where every attempt failed."""
    reason = error.strerror or type(error).__name__
    place = error.filename if isinstance(error.filename, str) else None
    told = json.dumps(["StoreError", reason, place, None])
    return Passing(f"clinloom-fault{told}clinloom-end")


def raised(text: str) -> BaseException:
    """The error that a receipt tells of."""
    kind, message, where, mend = json.loads(text)
    if kind == "OSError":
        return OSError(28, message)
    known = getattr(errors, kind, StoreError)
    return known(message, where=where, mend=mend)


@contextmanager
def told() -> Iterator[None]:
    """Raise as ours what tasks raised again and again."""
    try:
        yield
    except ClinloomError:
        raise
    except Exception as error:
        found = _MARK.search(str(error).replace("\\n", "\n"))
        if found is None:
            raise
        try:
            ours = raised(found[1])
        except ValueError:
            raise error from None
        raise ours from None
