"""The bundle that answers, its shadow, and how another takes its place, whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from clinloom.deploy._log import fault, tell, warn
from clinloom.deploy._metrics import Metrics
from clinloom.deploy._problems import Problem
from clinloom.deploy.bundle import Bundle, published
from clinloom.deploy.door import Door, Refusal
from clinloom.errors import ClinloomError, StoreError, UsageError

if TYPE_CHECKING:
    from clinloom.deploy.explain import Explainer

PERSON = {"resourceType": "Patient", "id": "1", "birthDate": "1950-01-01"}


@dataclass(frozen=True)
class Served:
    """A bundle at work: its door, and what can be told of it."""

    bundle: Bundle
    door: Door

    @classmethod
    def load(cls, address: str, source: str | None) -> Served:
        """Load a bundle and try it on a patient of whom nothing is known.

        Raises ClinloomError where it is none that scores.
        """
        bundle = Bundle.load(address)
        _ordered(bundle)
        door = Door(bundle, source=source)
        with contextlib.suppress(Refusal):  # a study without FHIR, or one that refuses so little
            door.score(door.fhir([PERSON]))
        found = cls(bundle, door)
        bundle.scorer.score(door.blank)
        return found

    @cached_property
    def explainer(self) -> Explainer:
        """Who tells the reasons. Raises Problem for a model that keeps none."""
        from clinloom.deploy.explain import Explainer

        try:
            return Explainer.of(self.bundle)
        except StoreError:
            raise Problem(501, "no_reasons") from None

    def warm(self) -> None:
        """Make what tells reasons, so that the first who asks for them need not wait."""
        with contextlib.suppress(Problem):
            _ = self.explainer

    @cached_property
    def wanted(self) -> dict[str, str]:
        """What it needs of a patient, as templates of a prefetch by their keys."""
        from clinloom.deploy import _prefetch

        return _prefetch.templates(self.bundle)

    @cached_property
    def name(self) -> dict[str, str]:
        """Study, model and mark, for answers and logs."""
        study, model = self.bundle.study["name"], self.bundle.scorer.model
        return {"study": study, "model": model, "mark": self.bundle.mark}

    @cached_property
    def card(self) -> dict[str, Any]:
        """What the bundle says of itself: its evidence, its study's hash, its features."""
        document = self.bundle.document
        kept = ("study_hash", "evidence", "patients", "learned", "warnings", "format", "units")
        study = self.bundle.study
        told = {key: study.get(key) for key in ("title", "description", "cohort")}
        features = [feature.to_dict() for feature in self.bundle.features]
        return {
            **self.name,
            **told,
            "threshold": self.bundle.scorer.threshold,
            **{key: document[key] for key in kept if key in document},
            "features": features,
        }


def _ordered(bundle: Bundle) -> None:
    """Raise UsageError where a risk would be critical that does not even warn."""
    hooks, threshold = bundle.resolved.deploy.cds_hooks, bundle.scorer.threshold
    if hooks is None or hooks.critical is None or hooks.warning is not None:
        return
    if hooks.critical < threshold:
        raise UsageError(
            f"`critical` ({hooks.critical:g}) lies below the model's threshold ({threshold:.4g}),"
            " from which a risk warns",
            where="deploy.cds_hooks.critical",
            mend="give a higher one, or `warning` beside it",
        )


class Standing:
    """What stands at a bundle's address, and at its shadow's, looked at every ``every`` seconds.

    ``current`` changes in one step, and only to a bundle that was loaded and tried; one that cannot
    be is told in ``fault`` and in the log, and what stood before goes on.
    """

    def __init__(
        self, address: str, *, source: str | None, shadow: str | None, every: float, counts: Metrics
    ):
        self._source, self._every, self._counts = source, every, counts
        self._addresses = {"served": address, **({"shadow": shadow} if shadow else {})}
        self._versions: dict[str, str | None] = {}
        self._found: dict[str, Served] = {}
        self._faults: dict[str, str] = {}
        self._asked = asyncio.Event()
        for role in self._addresses:
            self._versions[role] = self._version(role)
            self._found[role] = Served.load(self._addresses[role], source)

    @property
    def current(self) -> Served:
        """The bundle that answers."""
        return self._found["served"]

    @property
    def shadow(self) -> Served | None:
        """The bundle that scores beside it and answers nobody."""
        return self._found.get("shadow")

    @property
    def faults(self) -> dict[str, str]:
        """By role, why the newest bundle at its address was not taken up."""
        return dict(self._faults)

    def _version(self, role: str) -> str | None:
        return published(self._addresses[role])

    def look(self, *, force: bool = False) -> None:
        """Take up what is new at each address."""
        for role, address in self._addresses.items():
            try:
                version = self._version(role)
                known = version == self._versions[role] and role not in self._faults
                if known and not force:
                    continue
                self._versions[role] = version
                found = Served.load(address, self._source)
            except (ClinloomError, OSError) as error:
                self._refuse(role, getattr(error, "message", type(error).__name__))
                continue
            except Exception as error:  # whatever is wrong with it, what stands goes on
                self._refuse(role, fault(error)["error"])
                continue
            self._faults.pop(role, None)
            if found.bundle.mark != self._found[role].bundle.mark:
                found.warm()
                self._found[role] = found
                self._counts.swaps.labels("taken").inc()
                tell("bundle", role=role, **found.name)

    def _refuse(self, role: str, why: str) -> None:
        if self._faults.get(role) != why:
            self._counts.swaps.labels("refused").inc()
            warn("bundle_refused", role=role, why=why)
        self._faults[role] = why

    async def watch(self) -> None:
        """Look every so often, and at once on SIGHUP, until cancelled."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError, AttributeError):
            loop.add_signal_handler(signal.SIGHUP, self._asked.set)
        await asyncio.to_thread(self.current.warm)
        while True:
            forced = await _within(self._asked.wait, self._every)
            self._asked.clear()
            await asyncio.to_thread(self.look, force=forced)


async def _within(wait: Callable[[], Any], seconds: float) -> bool:
    """Whether what is waited for came in time."""
    try:
        await asyncio.wait_for(wait(), seconds)
    except TimeoutError:
        return False
    return True
