"""Where a run's outputs lie below its output address."""

from __future__ import annotations

from clinloom.files import Address

GUARDED = frozenset({"crosswalk"})  # the only link to source identifiers: for its owner alone
MANIFEST = "manifest.json"
GUARDED_ROOM, SCRATCH = "guarded", ".scratch"
SWEPT = (
    "tables",
    "models",
    "trials",
    SCRATCH,
)  # what the manifest does not name here does not exist
REPORT = "report.html"
BESIDE = ("report.md", "report.json", "card.xml")  # the same report in other forms
BUNDLE = "bundle.json"
DOCUMENTS = (MANIFEST, f"bundle/{BUNDLE}")  # each names files, and is replaced in one step
KEPT = frozenset({"bundle"})  # replaced in one step by its own document, which names its parts


def home(root: Address, name: str) -> Address:
    """The folder of a table or other output; ``models.lr`` lies in ``models/lr``."""
    if name in GUARDED:
        return root / GUARDED_ROOM / name
    if name == "bundle":
        return root / name
    room, _, rest = name.partition(".")
    return root / room / rest if rest else root / "tables" / name
