"""Answers that do not say yes: what was looked for is not there, or nobody knows.

SNOMED CT qualifier values, LOINC answer codes (LA…), HL7 v2 tables 0078 and 0136 and HL7 v3
ObservationInterpretation; and the words of reports, in lower case.
"""

from __future__ import annotations

NEGATIVE_CODES = frozenset(
    {
        "SNOMED//260385009",  # Negative
        "SNOMED//260415000",  # Not detected
        "SNOMED//2667000",  # Absent
        "SNOMED//373067005",  # No
        "SNOMED//260413007",  # None
        "SNOMED//264887000",  # Not isolated
        "SNOMED//131194007",  # Non-reactive
        "SNOMED//410516002",  # Known absent
        "SNOMED//410594000",  # Definitely not present
        "LOINC//LA6577-6",  # Negative
        "LOINC//LA11883-8",  # Not detected
        "LOINC//LA9634-2",  # Absent
        "LOINC//LA32-8",  # No
        "LOINC//LA137-2",  # None
        "V2-0136//N",
        "V3-OBSERVATIONINTERPRETATION//NEG",
        "V3-OBSERVATIONINTERPRETATION//ND",
        "V3-OBSERVATIONINTERPRETATION//NR",
    }
)
NEGATIVE_WORDS = frozenset(
    {
        "-",
        "absent",
        "false",
        "neg",
        "negative",
        "nein",
        "negativ",
        "negativo",
        "nicht nachgewiesen",
        "nicht nachweisbar",
        "no",
        "no evidence",
        "no growth",
        "non reactive",
        "non-reactive",
        "none",
        "none detected",
        "none found",
        "none isolated",
        "none present",
        "none seen",
        "nonreactive",
        "not detectable",
        "not detected",
        "not found",
        "not isolated",
        "not present",
        "not reactive",
        "not seen",
        "négatif",
        "undetectable",
        "undetected",
    }
)
OPEN_CODES = frozenset(
    {
        "SNOMED//261665006",  # Unknown
        "SNOMED//82334004",  # Indeterminate
        "SNOMED//42425007",  # Equivocal
        "SNOMED//419984006",  # Inconclusive
        "LOINC//LA4489-6",  # Unknown
        "LOINC//LA11885-3",  # Indeterminate
        "V3-NULLFLAVOR//UNK",
        "V3-OBSERVATIONINTERPRETATION//IND",
        "V3-OBSERVATIONINTERPRETATION//E",
    }
)
OPEN_WORDS = frozenset(
    {
        "equivocal",
        "inconclusive",
        "indeterminate",
        "not done",
        "not tested",
        "unbekannt",
        "unknown",
    }
)
OTHER_WORDS = frozenset(
    {
        "+",
        "++",
        "+++",
        "++++",
        "borderline",
        "detected",
        "ja",
        "nachgewiesen",
        "pos",
        "positif",
        "positiv",
        "positive",
        "positivo",
        "present",
        "reactive",
        "trace",
        "true",
        "weakly positive",
        "yes",
    }
)
VAGUE = frozenset({"-", "false", "nein", "no", "none"})  # what follows them may turn them round
NEGATIVE_BEGINNINGS = NEGATIVE_WORDS - VAGUE  # of a text that goes on, as "negative for …" does
UNASSERTED = NEGATIVE_CODES | NEGATIVE_WORDS | OPEN_CODES | OPEN_WORDS
WORDS = NEGATIVE_WORDS | OPEN_WORDS | OTHER_WORDS
