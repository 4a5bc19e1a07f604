"""Words by which columns of tables in the wild give themselves away, in lower case.

What is written when a stay or a follow-up ends (lengths, costs, survival, orders at the end of
life, discharge, death), and what says where data come from and not what they say. From columns of
public tables: SUPPORT2, MIMIC, eICU, the challenges of PhysioNet, HCUP's and SPARCS's discharges,
SEER, METABRIC, Heart Failure Clinical Records, HAM10000. A word of a name is a run of letters;
``*`` at an end of it stands for any others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

WRITTEN_LATER: Mapping[str, tuple[str, ...]] = {
    "the length of the stay": (
        "los", "slos", "elos", "*iculos", "*hospitallos", "length of *stay", "lengthofstay",
        "stay length", "length stay",
        "time in hospital", "days in hospital", "hospital days", "icu days", "time in icu",
        "days in icu", "hospital stay days", "duration of stay", "stay duration", "bed days",
        "ventilator days", "vent days", "ventilator free days",
    ),
    "what the stay cost": (
        "charge", "charges", "totchg", "*chg", "cost", "costs", "totcst", "totmcst", "*cst",
        "bill", "billing", "billed", "invoice", "reimbursement", "total payment", "amount paid",
        "claim amount", "claims paid", "drg", "*drg", "msdrg",
    ),
    "how long somebody lived or was followed": (
        "surv", "survival", "survived", "survivor", "surviving", "d time", "dtime", "futime",
        "follow up", "followup", "follow up *", "fu time", "fu days", "time to event",
        "time to death", "days to death", "days to last *", "event time", "time event",
        "os months", "os days", "os time", "os status", "pfs", "dfs", "rfs", "lastfollow*",
        "vital status", "last status", "final status", "status at *", "last contact",
    ),
    "an estimate of survival or of the outcome": (
        "prg", "prognosis", "prognos*", "surv m", "predicted *mortality", "predicted risk",
        "predicted *los", "expected *mortality", "expected los", "risk of mortality",
        "risk of death", "mortality risk", "predictedmortality", "predictedhospitalmortality",
        "predictedicumortality", "predictedhospitallos", "predictediculos", "risk score final",
    ),
    "an order or a decision at the end of life": (
        "dnr", "dnr*", "dni", "dnar", "do not resuscitate", "not for resuscitation",
        "resuscitation status", "code status", "comfort care", "comfort measures", "cmo",
        "palliative", "palliation", "hospice", "withdraw*", "withheld", "end of life",
        "limitation of *",
    ),
    "how the patient was discharged": (
        "discharge", "discharges", "discharged", "disch", "discharge*", "*discharge",
        "*dischargestatus", "*dischargelocation", "dischtime",
        "disposition", "dispuniform", "separation mode",
    ),
    "a death": (
        "death", "deaths", "dead", "died", "deceased", "decease", "*dead", "*death", "dod",
        "deathtime", "expire", "expired", "expires", "mortality", "*mortality", "fatal", "fatality",
        "autopsy", "necropsy", "cause of death", "organ donor", "alive",
    ),
    "what came after": (
        "outcome", "outcomes", "readmit", "readmitted", "readmission", "relapse", "relapsed",
        "recurrence", "recurred", "recurrent event", "progression", "sfdm", "avtisst", "*tiss",
        "sequel*", "complication after", "dx type", "dxtype", "diagnosis type",
        "diagnosis confirm type",
        "confirmed by", "final diagnosis", "discharge diagnosis", "histo type",
    ),
}  # fmt: skip
WHOLE = {  # names that say so only where they stand alone
    "time": "how long somebody lived or was followed",
    "status": "how long somebody lived or was followed",
    "event": "what came after",
    "dx": "the diagnosis itself",
    "label": "the outcome itself",
    "target": "the outcome itself",
    "class": "the outcome itself",
}
METADATA = (
    "hospital id", "hospitalid", "hospital name", "hospital number", "hospital", "center", "centre",
    "center id", "centre id", "facility", "facility id", "clinic id", "site id", "siteid", "device",
    "device id", "device name", "scanner", "scanner *", "manufacturer", "machine", "projection",
    "view position", "viewposition", "station name", "station id", "operator", "batch", "batch id",
    "accession", "accession number", "record id", "recordid", "patient id", "patientid",
    "subject id",
    "stay id", "encounter id", "case id", "row id", "row number", "mrn", "identifier", "file name",
    "filename",
)  # fmt: skip


def words(name: str) -> list[str]:
    """The words of a column's name: ``surv2m`` is surv m, ``lengthOfStay`` length of stay."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z]+", spaced.lower())


def written_later(code: str) -> str | None:
    """What a code is, by its name, that is written at the end; None: nothing of the kind.

    ``code``: vocabulary//code, of which each part is looked at.
    """
    parts = [words(part) for part in code.split("//")]
    if len(parts[-1]) == 1 and parts[-1][0] in WHOLE:
        return WHOLE[parts[-1][0]]
    for named in parts:
        for why, phrases in WRITTEN_LATER.items():
            if _expression(phrases).search(" ".join(named)):
                return why
    return None


def column(code: str) -> str:
    """The column that a code is of: ``DISPOSITION//11`` of ``DISPOSITION//*``, an answer aside.

    Where the vocabulary's name says what it is, and not the value's, all values are one column.
    """
    asked = code.partition("=")[0]
    head = asked.rpartition("//")[0]
    return f"{head}//*" if head and written_later(head) else asked


def metadata(code: str) -> bool:
    """Whether a code, by its name, says where data come from: a device, a hospital, a number."""
    parts = code.partition("=")[0].split("//")
    return any(_expression(METADATA).fullmatch(" ".join(words(part))) for part in parts)


@lru_cache(maxsize=64)
def _expression(phrases: tuple[str, ...]) -> re.Pattern[str]:
    parts = [re.escape(phrase).replace(r"\*", "[a-z]*").replace(r"\ ", " ") for phrase in phrases]
    return re.compile(rf"(?<![a-z])(?:{'|'.join(parts)})(?![a-z])")
