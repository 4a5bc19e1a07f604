"""What an external validation means, in plain words, and its words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clinloom.report.baseline import ALL_BUT_FEW
from clinloom.report.disclosure import SMALL, small
from clinloom.report.figures import FEW, MINUS, count, number, percent

Record = Mapping[str, Any]
TOO_FEW = "too few to judge a model by"
LARGE = 0.1  # standardised differences from which patients are said to differ (Austin, 2009)
WORDS = {
    "AUROC if the risks were right": "The model-based concordance: the AUROC that these patients"
    " would give the model if each risk were the chance of its outcome. It falls where patients are"
    " more alike, whatever the model. (van Klaveren et al., Stat Med 2016)",
    "Case mix": "Who the patients are. Where they are more alike than those whom the model was"
    " learned from, no model tells them apart as well.",
    "Cross-fitting": "Patients are divided in five; the risks of each fifth are changed by what the"
    " other four ask for, so that nobody's outcome judges what was learned from it.",
    "Difference": "Here less where it was learned. Its interval is made of both intervals (method"
    " of variance estimates recovery: Zou and Donner, Stat Med 2008).",
    "Linear predictor": "The log odds of the predicted risk. Its mean tells how ill patients seem"
    " to the model, its standard deviation how unlike one another. (Debray et al., J Clin Epidemiol"
    " 2015)",
    "O:E ratio": "Outcomes that came, for each that was expected of the risks: 1 is ideal, below 1"
    " risks are too high, above 1 too low.",
    "Test patients": "Here all patients of the cohort: none of them taught the model.",
    "Standardised difference": "How far a characteristic lies from the training patients', in"
    " standard deviations, of ranks among theirs, so that a few extreme values weigh little (of a"
    " share it is the usual one). Beyond 0.1 patients are said to differ. (Austin, Stat Med 2009)",
}


def sentences(record: Record) -> Iterator[str]:
    """What the numbers beside one another mean, in plain words."""
    auroc, mix = record["metrics"]["auroc"], record["casemix"]
    here, there, change = (auroc[name] for name in ("here", "there", "difference"))
    if here["value"] is None:
        yield f"Fewer than {FEW} patients here have, or have not, the outcome: {TOO_FEW}."
    if change["value"] is not None and change["low"] is not None:
        if change["high"] < 0:
            said = "The model tells these patients apart less well than those where it was learned"
        elif change["low"] > 0:
            said = "The model tells these patients apart better than those where it was learned"
        else:
            said = "That the model tells these patients apart otherwise than those may be chance"
        yield f"{said} (AUROC {number(here['value'])} here, {number(there['value'])} there)."
    expected = mix["expected_auroc"]["here"]["value"]
    before = mix["expected_auroc"]["there"]
    if expected is not None and before is not None and change["value"] is not None:
        mixed = expected - before
        yield (
            f"If its risks were right, the AUROC would be {number(expected)} here and"
            f" {number(before)} there: so of the change of {_signed(change['value'])},"
            f" {_signed(mixed)} lies in who the patients are, the rest"
            f" ({_signed(change['value'] - mixed)}) in the model, its inputs, or chance."
        )
    apart, shown = len(differing(record)), record["characteristics"]
    if shown:
        yield (
            f"{apart} of the {len(shown)} characteristics on which it leans most differ"
            f" by more than {LARGE} standard deviations; of so many patients chance alone makes"
            f" differences of up to {number(record['chance'], 2)}."
        )
    absent = record["leaning"]
    if absent["absent"]:
        yield (
            f"Of its {count(absent['codes'])} codes {count(absent['absent'])} are absent here, with"
            f" {percent(absent['absent_weight'])} of its weight (fewer than 5 patients have them)."
        )
    if record["recalibration"]:
        yield verdict(record["recalibration"]) + "."


def _signed(value: float) -> str:
    text = number(value)
    return text if text.startswith(MINUS) else f"+{text}"


def verdict(found: Record) -> str:
    """What the outcomes here ask to change."""
    if "refused" in found:
        return f"No recalibration: {found['refused']}"
    level, spread = number(found["intercept"], 2), number(found["slope"], 2)
    return {
        "none": "These outcomes ask for no recalibration",
        "intercept": f"These outcomes ask to move the risks' level by {level} logits",
        "intercept and slope": "These outcomes ask to change the risks' level and spread"
        f" (intercept {level}, slope {spread})",
    }[found["method"]]


def differing(record: Record) -> list[Record]:
    """The characteristics that differ beyond ``LARGE``."""
    return [
        row
        for row in record["characteristics"]
        if row["difference"] is not None and abs(row["difference"]) > LARGE
    ]


def counted(number: int, known: int, lacking: int) -> str:
    """n (%) of the known; no count below 5, nor one that leaves fewer over, nor the share where it
    would tell of how few it is not known."""
    if number < FEW:
        return SMALL
    if known - number < FEW:
        return ALL_BUT_FEW
    return count(number) if small(lacking) else f"{count(number)} ({percent(number / known)})"


def missing(lacking: int, known: int) -> str:
    """The share that is not known; hidden where few are, or are not."""
    if small(lacking):
        return SMALL
    if small(known):
        return ALL_BUT_FEW
    return percent(lacking / (lacking + known), 0) if lacking + known else ""
