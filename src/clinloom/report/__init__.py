"""The report: one self-contained page that a clinician can read, save, print and send.

A kernel room: the run's record in, HTML out. The page holds its own style and charts, runs no
script and asks nothing of a network; every text from the study is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from clinloom.report.page import view

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["render", "shown", "template", "view"]


def render(record: Mapping[str, Any]) -> str:
    """The page of a run's record (what ``run.record.gather`` gives), as HTML text.

    Whatever the record lacks is left out or said to be absent: models without curves, numbers
    that are None, one modality only, an empty ledger.
    """
    return shown(view(record))


def shown(found: Mapping[str, Any]) -> str:
    """The page of what :func:`view` made of a record."""
    return template("report.html.j2").render(found)


@cache
def template(name: str) -> Template:
    """A page's template by the name of its file; every value is escaped unless a chart made it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # the service needs no pages

    environment = Environment(
        loader=PackageLoader("clinloom.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
