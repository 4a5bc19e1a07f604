"""A finding about a machine, a cluster or a storage, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One finding: ``detail`` is what was found, ``mend`` what to do where it is not ok.

    A check that is not ``required`` takes a feature away where it fails, and nothing else.
    """

    name: str
    ok: bool
    detail: str
    mend: str = ""
    required: bool = True
