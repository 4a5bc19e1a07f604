"""A storage tried out: a probe is written, read, replaced, listed and removed, and told how."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

from clinloom import files
from clinloom.checks import Check
from clinloom.errors import ClinloomError

Answer = TypeVar("Answer")
ONE_STEP = {  # what the table of clinloom.files says of ``swap``
    "file": "checks, then replaces: of two runs the lease decides",
    "hdfs": "checks, then replaces: of two runs the lease decides",
}
CONDITIONAL = "is conditional: of two runs one succeeds"


def checks(where: str) -> Iterator[Check]:
    """Every verb that a run needs, on a file of this process's own below the address."""
    folder = files.address(where) / f".clinloom-probe-{uuid.uuid4().hex[:8]}"
    one, two = folder / "one", folder / "two"
    mend = "may this user write there? see `storage` in docs/cluster.md for credentials"
    first, fault = _tried(lambda: files.write(one, b"first"))
    if fault:
        yield Check("write", False, fault, mend)
        return
    yield Check("write", True, "whole, or not at all")
    try:
        data, fault = _tried(lambda: files.read(one, 1, 3))
        yield Check("read a range", data == b"ir", fault or "its own bytes", "may it read?")
        made, fault = _tried(lambda: (files.create(two, b"x"), files.create(two, b"y")))
        sure = made is not None and made[0] is not None and made[1] is None
        mend = "the store ignores If-None-Match: two runs on one output would not see each other"
        yield Check("create once", sure, fault or "exclusive", mend)
        yield _swap(one, first)
        found, fault = _tried(lambda: [e.address.name for e in files.listed(folder)])
        same = found == ["one", "two"]
        yield Check("list", same, fault or "what was written, at once", "may it list?")
    finally:
        _, fault = _tried(lambda: files.remove(folder))
        left, more = _tried(lambda: files.exists(folder))
        gone = not (fault or more or left)
        detail = fault or more or ("nothing is left" if gone else "the probe is still there")
        yield Check("remove", gone, detail, f"may it delete? remove {folder}")


def _swap(one: files.Address, first: str | None) -> Check:
    made, fault = _tried(
        lambda: (files.swap(one, b"second", first), files.swap(one, b"third", first))
    )
    sure = made is not None and made[0] is not None and made[1] is None
    told = ONE_STEP.get(one.scheme, CONDITIONAL)
    mend = "the store ignores If-Match: only one run at a time may use an output there"
    return Check("swap", sure, fault or told, mend)


def _tried(call: Callable[[], Answer]) -> tuple[Answer | None, str]:
    try:
        return call(), ""
    except OSError as error:
        return None, error.strerror or type(error).__name__
    except ClinloomError as error:
        return None, f"{error.message}{'; ' + error.mend if error.mend else ''}"
