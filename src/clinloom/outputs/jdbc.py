"""A table of a database, replaced in one transaction; `--out` is the address of a receipt.

Spark fills a table beside it, whose rows then take the place of those that were there: who reads
meanwhile sees the old scores, and grants and views stay. Where there is no table, Spark makes it.
The receipt, a small JSON file, tells what was written where.
"""

from __future__ import annotations

import json
import re
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from clinloom import files
from clinloom.files import Address
from clinloom.outputs import Scores, writing
from clinloom.spark import database, workers
from clinloom.study import Model

REQUIRES: str | None = None
REFERENCE = re.compile(r"env:[A-Za-z_]\w*|file:/.+")
NAME = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,2}$"


def _reference(text: str) -> str:
    if not REFERENCE.fullmatch(text):
        raise ValueError("is a secret: write env:NAME or file:/PATH")
    return text


class Options(Model):
    """Which table of which database, and how it is opened."""

    url: str = Field(description="the database: jdbc:postgresql://host/name, without a secret")
    table: str = Field(pattern=NAME, description="the table", examples=["clinic.risk"])
    user: str | None = Field(default=None, description="the login; may be env:NAME or file:/PATH")
    password: Annotated[str, AfterValidator(_reference)] | None = Field(
        default=None, description="its password, as env:NAME or file:/PATH"
    )
    driver: str | None = Field(
        default=None, description="the driver's class, where Spark does not find it by the url"
    )

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        if not url.startswith("jdbc:"):
            raise ValueError("a database's address begins with jdbc:")
        if re.search(r"//[^/\s]*@|(password|pwd|token|secret)\s*=", url, re.IGNORECASE):
            raise ValueError("carries a secret: give `user` and `password`")
        return url


def write(scores: Scores, target: Address, options: Options) -> int:
    """Leave the declared table `predictions` in the database, then the receipt at ``target``."""
    properties = {"driver": options.driver} if options.driver else {}
    for name in ("user", "password"):
        if given := getattr(options, name):
            properties[name] = files.named(given, where=f"--option {name}")
    rows = scores.predictions.rows or 0
    database.replace(
        scores.spark,
        workers.read(scores.spark, scores.predictions, scores.table),
        url=options.url,
        table=options.table,
        properties=properties,
        rows=rows,
    )
    told = {"url": options.url, "table": options.table, "rows": rows, "bundle": scores.bundle.hash}
    with writing(target):
        files.write(target, json.dumps(told, indent=1).encode())
    return rows
