"""What a study's model says in the clinic's own record system, and to whom: CDS Hooks 2.0.1."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from clinloom.errors import instead
from clinloom.study.kinds import Model

Hook = Literal["patient-view", "order-select", "order-sign", "encounter-discharge"]
Searched = Literal[
    "Condition",
    "Encounter",
    "Immunization",
    "MedicationAdministration",
    "MedicationDispense",
    "MedicationRequest",
    "MedicationStatement",
    "Observation",
    "Procedure",
]
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def secured(url: str) -> str:
    """A URL of https, or of this machine alone. Raises ValueError for another."""
    parts = urlsplit(url)
    trusted = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    if not trusted or not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("is an https URL without user, query and fragment (http on loopback)")
    return url.rstrip("/")


def _origin(text: str) -> str:
    origin = secured(text)
    if urlsplit(origin).path:
        raise ValueError("an origin is written like https://ehr.example.org, without a path")
    return origin.lower()  # as browsers write it


Url = Annotated[str, AfterValidator(secured)]
Origin = Annotated[str, AfterValidator(_origin)]
Short = Annotated[str, Field(min_length=1, max_length=80)]


def _known(given: Any, choices: tuple[str, ...]) -> Any:
    """One of the choices, or several. Raises ValueError with the nearest for another."""
    several = [given] if isinstance(given, str) else given
    for name in several if isinstance(several, (list, tuple)) else ():
        if name not in choices:
            raise ValueError(f"there is no '{name}'; {instead(str(name), choices)}")
    return several


class Client(Model):
    """Who may ask: an EHR, known by the issuer of its tokens."""

    issuer: str = Field(min_length=1, description="the `iss` of its tokens, exactly")
    keys: str = Field(
        description="its JSON Web Key Set: an https URL, or the address of a file",
    )
    jku: Url | None = Field(
        default=None,
        description="the only `jku` that its tokens may name; none: `keys`, where that is a URL",
    )
    servers: tuple[Url, ...] = Field(
        default=(),
        description="base URLs of its FHIR servers, from which what was not prefetched is fetched;"
        " none: from nowhere",
    )

    @model_validator(mode="after")
    def _keys(self) -> Self:
        if self.keys.startswith(("http:", "https:")):
            secured(self.keys)
        return self

    @property
    def named(self) -> str | None:
        """The `jku` that its tokens may name."""
        return self.jku or (self.keys if self.keys.startswith(("http:", "https:")) else None)


class Coding(Model):
    """A code with a display."""

    code: Short = Field(description="what feedback calls it")
    system: str = Field(default="urn:clinloom:override-reason", description="its code system")
    display: Short = Field(description="what a clinician reads")


class Action(Model):
    """A resource that a suggestion creates, for the patient."""

    description: str = Field(min_length=1, description="what a clinician reads")
    resource: dict[str, Any] = Field(
        description="a FHIR resource, such as a ServiceRequest; whose it is is filled in"
    )

    @model_validator(mode="after")
    def _typed(self) -> Self:
        if not isinstance(self.resource.get("resourceType"), str):
            raise ValueError("`resource` needs its `resourceType`")
        return self


class Suggestion(Model):
    """What may be done about a risk, with a click."""

    label: Short = Field(description="what a clinician reads")
    recommended: bool = Field(default=False, description="whether the EHR may select it before")
    actions: tuple[Action, ...] = Field(default=(), description="what accepting it does")


OVERRIDES = (
    Coding(code="known", display="Known, and acted on already"),
    Coding(code="not-applicable", display="Does not apply to this patient"),
    Coding(code="disagree", display="I judge the risk otherwise"),
)


class CdsHooks(Model):
    """Cards in the EHR: on which hooks, from which risk on, in which words, for which clients."""

    hooks: tuple[Hook, ...] = Field(
        default=("patient-view",), min_length=1, description="when the EHR asks"
    )
    url: Url | None = Field(
        default=None,
        description="the base URL under which clients reach the service; `aud` of their tokens is"
        " this and the path. Needed with `clients`",
    )
    clients: tuple[Client, ...] = Field(default=(), description="who may ask")
    anonymous: bool = Field(
        default=False, description="answer whoever asks, without a token: for trials, on loopback"
    )
    origins: tuple[Origin, ...] = Field(
        default=(), description="web origins of EHRs that run in a browser (CORS)"
    )
    warning: float | None = Field(
        default=None, ge=0, le=1, description="warn at this risk; none: at the model's threshold"
    )
    critical: float | None = Field(
        default=None, ge=0, le=1, description="what is critical begins at this risk; none: nothing"
    )
    silent: bool = Field(
        default=True, description="no card below `warning`; false: one that is for information"
    )
    lapsed: Literal["silent", "shown"] = Field(
        default="silent",
        description="a risk whose time at risk is over (index time + `outcome.within`): no card, or"
        " one all the same, as with records whose dates were shifted",
    )
    reasons: int = Field(default=5, ge=0, le=20, description="features that a card tells, at most")
    source: Short = Field(default="Clinloom", description="whose word the card is")
    about: Url | None = Field(default=None, description="where to read more of it")
    overrides: tuple[Coding, ...] = Field(
        default=OVERRIDES, description="why a clinician may set a card aside"
    )
    suggestions: tuple[Suggestion, ...] = Field(
        default=(), description="what a card that warns proposes"
    )
    feedback: str | None = Field(
        default=None,
        description="the address where cards and what became of them are kept, without any"
        " patient; none: feedback is not taken",
    )
    resources: dict[str, tuple[Searched, ...]] = Field(
        default={},
        description="by vocabulary (a code up to its //), the resource types that hold its codes"
        " here, in place of the usual ones: `RXNORM: [MedicationRequest]`",
    )
    seconds: float = Field(
        default=5, gt=0, le=60, description="how long fetching what is missing may take"
    )

    @field_validator("hooks", mode="before")
    @classmethod
    def _hooks(cls, given: Any) -> Any:
        return _known(given, get_args(Hook))

    @field_validator("resources", mode="before")
    @classmethod
    def _types(cls, given: Any) -> Any:
        kinds = get_args(Searched)
        return {k: _known(v, kinds) for k, v in given.items()} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.clients and self.url is None:
            raise ValueError("`clients` need `url`, which their tokens are made for")
        if self.clients and self.anonymous:
            raise ValueError("`anonymous` goes without `clients`")
        issuers = [client.issuer for client in self.clients]
        if len(set(issuers)) < len(issuers):
            raise ValueError("two `clients` have one `issuer`")
        if None not in (self.warning, self.critical) and self.critical < self.warning:  # type: ignore[operator]
            raise ValueError("`critical` lies below `warning`")
        return self
