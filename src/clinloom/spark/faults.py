"""Faults of tasks: what may pass is left to Spark, which tries again; the rest is told as ours.

What a worker lacks (a Python, a library, a secret) is found in what Spark says of it, which is a
Java stack trace around a Python one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from clinloom import errors
from clinloom.errors import ClinloomError, MissingDependency, StoreError, UsageError
from clinloom.store import disk_full

_MARK = re.compile(r"clinloom-fault(\[.*?\])clinloom-end", re.DOTALL)
_VARIABLE = re.compile(r"environment variable (\w+) is not set")
WORKERS = "Spark's workers"
SAME = "install there what is installed here, Clinloom of the same version with its extras"
CREDENTIALS = "may the workers open it? They need credentials, too (spark.executorEnv.NAME)"
FULL = "No space left on device"


class Passing(RuntimeError):
    """A fault of a store or network that another attempt may not meet."""


def lasting(error: BaseException) -> str | None:
    """A fault that another attempt would meet again, as text for a receipt; None for another."""
    if disk_full(error):
        return json.dumps(["OSError", FULL, None, None])
    if isinstance(error, ClinloomError):
        if isinstance(error, MissingDependency) or _VARIABLE.search(error.message):
            where = f"{error.where}: " if error.where else ""
            error = _lacking(type(error), f"{where}{error.message}", error.mend)
        return json.dumps([type(error).__name__, error.message, error.where, error.mend])
    return None


def passing(error: OSError) -> Passing:
    """A fault for Spark to try again; its text is found again where every attempt failed."""
    reason = error.strerror or type(error).__name__
    place = error.filename if isinstance(error.filename, str) else None
    mend = CREDENTIALS if isinstance(error, PermissionError) and "://" in (place or "") else None
    told = json.dumps(["StoreError", reason, place, mend])
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
    except (ClinloomError, ImportError):  # the latter is this process's own
        raise
    except Exception as error:
        ours = known(str(error))
        if ours is None:
            raise
        raise ours from None


def known(text: str) -> BaseException | None:
    """Our error for what Spark says, where that is a fault that a person mends; else None."""
    text = text.replace("\\n", "\n")
    if found := _MARK.search(text):
        try:
            return raised(found[1])
        except ValueError:
            return None
    for pattern, made in _SAID:
        if found := re.search(pattern, text):
            return made(found)
    return None


def _ours(found: re.Match[str]) -> ClinloomError:
    """An error of ours that left a worker as it is."""
    return _lacking(getattr(errors, found[1], StoreError), found[2], found[3])


def _lacking(kind: type[ClinloomError], message: str, mend: str | None) -> ClinloomError:
    """An error that a worker met, which may lack what this process has."""
    if variable := _VARIABLE.search(message):
        mend = f"set it for them, too: spark.executorEnv.{variable[1]}"
    elif issubclass(kind, MissingDependency):
        mend = f"{mend or SAME}, in the Python that they run"
    return kind(message, where=WORKERS, mend=mend)


def _python(found: re.Match[str]) -> ClinloomError:
    mend = "install it on every node, or name their Python: PYSPARK_PYTHON, `platform.yarn.python`"
    return MissingDependency(f"there is no Python at {found[1]}", where=WORKERS, mend=mend)


def _version(found: re.Match[str]) -> ClinloomError:
    said = f"their Python is another version than this one ({found[1].strip('(). :')})"
    return MissingDependency(said, where=WORKERS, mend="let both be the same minor version")


def _module(found: re.Match[str]) -> ClinloomError:
    name = found[1].partition(".")[0]
    lacks = "Clinloom" if name == "clinloom" else f"the library {name}"
    return MissingDependency(f"their Python lacks {lacks}", where=WORKERS, mend=SAME)


def _size(found: re.Match[str]) -> ClinloomError:
    who = "an executor" if found[1] == "executor" else "the driver's container"
    return UsageError(
        f"{who} is larger than the {found[2]} MB that the cluster gives one container",
        where="platform.yarn",
        mend="ask for less `memory`, `overhead` or `driver_memory`; what limits it is"
        " yarn.scheduler.maximum-allocation-mb",
    )


_SAID: tuple[tuple[str, Callable[[re.Match[str]], ClinloomError]], ...] = (
    (r"clinloom\.errors\.(\w+): (.+)(?:\n  → (.+))?", _ours),
    (r'Cannot run program "([^"]*python[^"]*)"', _python),
    (r"Python in worker has different version(.{1,20}) than that in driver", _version),
    (r"No module named '?([\w.]+)", _module),
    (r"Required (executor|AM|driver) memory .{0,300}above the max threshold \((\d+) MB\)", _size),
)
