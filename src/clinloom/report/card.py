"""The model card as XML: the applied model card of the Coalition for Health AI, schema v0.2.

(https://mc.chai.org) What only a person can say is left, and said so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as Xml

from clinloom.report.checklists import PERSON

SPACE = "https://mc.chai.org/v0.2/schema.xsd"
Tree = Mapping[str, Any]
USEFUL = ("auroc", "auprc", "recall", "specificity", "precision", "npv")
SAFE = ("calibration_slope", "calibration_intercept", "brier", "ici")


def card(
    view: Mapping[str, Any], facts: Mapping[str, str], metrics: Mapping[str, Any], version: str
) -> str:
    """The card's text; ``metrics``: of the selected model on test rows, and ``fairness`` of its
    subgroups, by name."""
    how = " ".join(view["judged"]["how"])
    where = f"{facts.get('sources', PERSON)} Rows that the model which judges them did not see."
    process = f"{how} Intervals are from a bootstrap that draws whole patients."

    def tested(goal: str, results: list[tuple[str, Any]], says: str) -> Tree:
        return {
            "MetricGoal": goal,
            "Results": {
                "MetricResult": [
                    {"Label": label, "ValueJson": json.dumps(value)} for label, value in results
                ]
                or [{"Label": "Not shown", "ValueJson": json.dumps(None)}]
            },
            "Interpretation": says or PERSON,
            "TestType": "Internal validation",
            "TestingDataDescription": where,
            "ValidationProcessAndJustification": process,
        }

    def numbers(names: tuple[str, ...]) -> list[tuple[str, Any]]:
        return [(name, metrics[name]) for name in names if metrics.get(name)]

    tree = {
        "BasicInfo": {
            "ModelName": view["title"],
            "ModelDeveloper": PERSON,
            "DeveloperContact": PERSON,
        },
        "ReleaseInfo": {
            "ReleaseStage": PERSON,
            "ReleaseDate": view["created"],
            "ReleaseVersion": view["hash"] or PERSON,
            "GlobalAvailability": PERSON,
        },
        "ModelSummary": {"Summary": view["description"] or PERSON, "Keywords": {}},
        "UsesAndDirections": {
            "IntendedUseAndWorkflow": PERSON,
            "PrimaryIntendedUsers": PERSON,
            "HowToUse": PERSON,
            "TargetedPatientPopulation": facts.get("flow", PERSON),
            "CautionedOutOfScopeSettings": PERSON,
        },
        "Warnings": {
            "KnownRisksAndLimitations": facts.get("limits", PERSON),
            "KnownBiasesOrEthicalConsiderations": facts.get("fairness", PERSON),
            "ClinicalRiskLevel": PERSON,
        },
        "TrustIngredients": {
            "AISystemFacts": {
                "OutcomesAndOutputs": facts["output"],
                "ModelType": view["chosen"] or PERSON,
                "InputDataSource": facts.get("sources", PERSON),
                "OutputAndInputDataTypes": "In: coded events with times and values, and numbers"
                " measured from images. Out: a risk from 0 to 1, and a flag.",
                "DevelopmentDataCharacterization": facts.get("size", PERSON),
                "BiasMitigationApproaches": PERSON,
                "OngoingMaintenance": facts["monitoring"],
                "Transparency": f"Made by Clinloom {version}; report.html tells of every number.",
            },
            "TransparencyInformation": {"FundingSource": PERSON, "StakeholdersConsulted": PERSON},
        },
        "KeyMetrics": {
            "UsefulnessUsabilityEfficacy": tested(
                "Tell patients with the outcome from those without.",
                numbers(USEFUL),
                " ".join(view["sentences"]),
            ),
            "FairnessEquity": tested(
                "Do as well in subgroups.", list((metrics.get("fairness") or {}).items()), ""
            ),
            "SafetyReliability": tested("Tell risks that can be believed.", numbers(SAFE), ""),
        },
        "Resources": {"PeerReviewedPublications": PERSON, "PatientConsentOrDisclosure": PERSON},
        "Bibliography": "",
    }
    root = Xml.Element("AppliedModelCard", xmlns=SPACE)
    _grow(root, tree)
    Xml.indent(root)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"
    )


def _grow(above: Xml.Element, tree: Tree) -> None:
    for name, value in tree.items():
        for one in value if isinstance(value, list) else [value]:
            child = Xml.SubElement(above, name)
            if isinstance(one, Mapping):
                _grow(child, one)
            else:
                child.text = _plain(str(one))


def _plain(text: str) -> str:
    """The text without what XML cannot hold."""
    return "".join(sign for sign in text if sign in "\t\n" or ord(sign) >= 32)
