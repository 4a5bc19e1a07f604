"""A coded answer is a part of the code: "sepsis: negative" is not sepsis.

What a fact says decides what it is, so a code that has an answer is written ``code=answer`` from
here on, in features and outcomes alike. A pattern without an answer fits every answer but those
that say no or leave it open (see ``clinloom.events.matching``).
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from clinloom import events
from clinloom.clean._sheet import Sheet
from clinloom.events import ANSWER, Flags
from clinloom.study import Codes, RuleModel
from clinloom.vocabulary.answers import NEGATIVE_BEGINNINGS, WORDS

REQUIRES: str | None = None
ORDER = 25

LONGEST = 64  # characters of an answer
CODED = re.compile(r"[A-Z0-9][A-Z0-9_.-]*//[^\s=]+")
SAYS_NO = "|".join(map(re.escape, sorted(NEGATIVE_BEGINNINGS, key=len, reverse=True)))
GOES_ON = r"(?= ?[,;:.(/<]| [-\u2013] | (for|of|by|in|on|at|after|per|für|auf|im)\b)"
BEGINS = re.compile(f"({SAYS_NO}){GOES_ON}")
NO_MORE = re.compile(rf"\b({SAYS_NO})\b")
YES = r"\b(pos(iti\w*)?|detected|present|reactive|nachgewiesen|but|except|however|now)\b"
TURNS = re.compile(YES)


class Options(RuleModel):
    """Which texts are answers."""

    codes: Codes = Field(
        default=(),
        description="codes or patterns of which each short text is an answer, beside coded ones and"
        " words such as `negative`, `not detected`, `yes`; they show in results, so name no code"
        " whose texts tell who somebody is",
    )


def apply(sheet: Sheet, options: Options) -> None:
    """Write ``code=answer``; ledger `answer`, and `free_text` for texts that stay what they are.

    Coded answers (``SNOMED//260415000``), words of a closed list in lower case, those of them that
    say no even where the text goes on ("negative for …"), and true or false.
    Numbers keep their code, whatever text stands beside.
    """
    text = sheet.column("text_value")
    if text.null_count == len(text):
        return
    present = events.valid(text)
    rows = np.flatnonzero(sheet.kept if present is None else present & sheet.kept)
    place, texts = _texts(text, rows)
    said = np.isnan(sheet.value[rows])
    booleans = np.array([t in ("true", "false") for t in texts], bool)
    rows, place, said = _where(said | events.looked_up(booleans, place), rows, place, said)
    code, codes = sheet.code
    of_row, names = _named(code[rows], codes, place, texts, options.codes)
    joined = of_row >= 0
    sheet.note(rows[joined], rule="answer", action="joined")
    sheet.note(rows[~joined & said], rule="free_text", action="kept_as_text")
    sheet.set_code(rows[joined], of_row[joined], names)


def _where(keep: Flags, *arrays: np.ndarray) -> list[np.ndarray]:
    return [array[keep] for array in arrays]


def _named(
    code: np.ndarray, codes: list[str], place: np.ndarray, texts: list[str], free: Codes
) -> tuple[np.ndarray, list[str]]:
    """Each row's place among the codes with their answers, -1 where it has none; these codes.

    ``place``: each row's among ``texts``; ``free``: patterns of codes whose texts are all answers.
    """
    answers, short = [_answer(t) for t in texts], [_short(t) for t in texts]
    open_ = events.matching(codes, free)
    found, back = np.unique(code.astype(np.int64) * len(texts) + place, return_inverse=True)
    names: dict[str, int] = {}
    numbers = np.full(len(found), -1, np.int32)
    for number, pair in enumerate(found.tolist()):
        at, which = divmod(pair, len(texts))
        answer = answers[which] or (short[which] if open_[at] else None)
        if answer is not None and ANSWER not in codes[at]:
            name = f"{codes[at]}{ANSWER}{answer}"
            numbers[number] = names.setdefault(name, len(names))
    return numbers[back], list(names)


def _texts(text: pa.Array, rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Each row's place among the distinct texts; long ones, which are no answers, are one."""
    some = text.take(pa.array(rows))
    if isinstance(some, pa.DictionaryArray):
        some = some.dictionary.take(some.indices)
    some = some.cast(pa.string())
    long = pc.greater(pc.utf8_length(some), LONGEST + 16)
    place, texts = events.coded(pc.if_else(long, " " * (LONGEST + 1), some))
    return place, texts


@lru_cache(maxsize=4096)
def _answer(text: str) -> str | None:
    """The answer that a text is in any case, else None."""
    written = text.strip()
    if len(written) <= LONGEST and CODED.fullmatch(written):
        return written
    word = " ".join(written.lower().rstrip(".!").split())
    return word if word in WORDS else _negative(word)


def _negative(text: str) -> str | None:
    """The words by which a text says no, where it begins with them and never turns to a yes."""
    found = BEGINS.match(text)
    if found is None or TURNS.search(NO_MORE.sub("", text)):
        return None
    return found[1]


def _short(text: str) -> str | None:
    written = " ".join(text.split())
    return written if 0 < len(written) <= LONGEST and ANSWER not in written else None
