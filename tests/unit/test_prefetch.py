"""What a model needs of a patient as FHIR searches, from its features and its cohort alone."""

from __future__ import annotations

import pytest
import yaml

from clinloom import plugins
from clinloom import study as studies
from clinloom.deploy import _prefetch
from clinloom.errors import StudyError
from clinloom.features import Feature

STUDY = """
name: ward
sources: {ehr: {type: fhir, path: fhir, systems: {"http://lab.example/codes": LAB}}}
cohort: {index: {at: ENCOUNTER//IMP//START}, outcome: {codes: ICD10CM//J96.01, within: 30d}}
features: {measurements: }
models: [logistic_regression]
"""
PATIENT = "{{context.patientId}}"


def templates(*codes, study=STUDY, **deploy):
    document = yaml.safe_load(study)
    if deploy:
        document["deploy"] = {"cds_hooks": {"anonymous": True, **deploy}}
    features = [
        Feature.named(f"measurements|{code}|last|all", modality="records") for code in codes
    ]
    resolved = studies.parse(document, rooms=plugins)
    made = type("Made", (), {"features": features, "resolved": resolved})()
    found = _prefetch.templates(made)
    assert found.pop("patient") == f"Patient/{PATIENT}"
    return {key.rpartition("-")[0]: template for key, template in found.items()}


BOTH = {
    "condition": f"Condition?patient={PATIENT}&code=http://hl7.org/fhir/sid/icd-10-cm|J96.01",
    "encounter": f"Encounter?patient={PATIENT}&class=IMP",
}


def test_the_cohorts_codes_are_needed_whatever_the_features_are():
    assert templates() == BOTH


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (
            ["LOINC//2160-0", "LOINC//8867-4", "LOINC//2160-0"],
            {
                "observation": f"Observation?patient={PATIENT}"
                "&code=http://loinc.org|2160-0,http://loinc.org|8867-4"
            },
        ),
        (
            ["LOINC//72166-2=SNOMED//8517006"],
            {"observation": f"Observation?patient={PATIENT}&code=http://loinc.org|72166-2"},
        ),
        (["CVX//140"], {"immunization": "vaccine-code=http://hl7.org/fhir/sid/cvx|140"}),
        (["CPT//99213"], {"procedure": "code=99213"}),
        (["LAB//K 1,2"], {"observation": "code=http://lab.example/codes|K%201%2C2"}),
        (["MEDS_BIRTH", "GENDER//female", "MEDS_DEATH", "IMAGE//CR//CHEST//x"], {}),
        (["ENCOUNTER//EMER//START"], {"encounter": "class=EMER,IMP"}),
        (["ENCOUNTER//UNKNOWN//START"], {"encounter": ""}),
    ],
    ids=lambda given: str(given)[:40],
)
def test_features_ask_for_their_resources_and_codes(codes, expected):
    found = templates(*codes)
    for kind, asked in expected.items():
        whole = asked if "?" in asked else f"{kind.title()}?patient={PATIENT}"
        if asked and whole != asked:
            whole += f"&{asked}"
        assert found[kind].startswith(whole) and (asked or found[kind] == whole)
    kinds = {"observation", "condition", "procedure"} if "LAB" in codes[0] else set(expected)
    assert set(found) == {"condition", "encounter"} | kinds


def test_medicines_may_stand_in_a_resource_of_their_own():
    found = templates("RXNORM//4603")
    asked = {k: v for k, v in found.items() if k not in BOTH}
    assert asked == {
        f"medication{kind.lower()}": f"Medication{kind}?patient={PATIENT}"
        f"&_include=Medication{kind}:medication"
        for kind in ("Request", "Administration", "Statement", "Dispense")
    }


def test_a_site_says_in_which_resources_its_codes_are():
    found = templates("RXNORM//4603", resources={"RXNORM": ["MedicationRequest"]})
    assert set(found) == {*BOTH, "medicationrequest"}


@pytest.mark.parametrize("pattern", ["ICD10CM//*", "ICD10CM//J9*", "ICD*"])
def test_a_pattern_in_the_cohort_asks_for_all(pattern):
    study = STUDY.replace("ICD10CM//J96.01", f'"{pattern}"')
    found = templates(study=study)
    assert found["condition"] == f"Condition?patient={PATIENT}"


def test_a_pattern_of_everything_asks_for_every_type():
    study = STUDY.replace("at: ENCOUNTER//IMP//START", 'at: "*"')
    found = templates("LOINC//2160-0", study=study)
    assert {"observation", "encounter", "immunization", "procedure"} <= set(found)
    assert all("code=" not in search for search in found.values())


def test_many_codes_are_several_searches():
    codes = [f"LOINC//{n}-{n % 10}" for n in range(10_000, 10_200)]
    found = templates(*codes)
    parts = [v for k, v in found.items() if k.startswith("observation")]
    assert set(found) == {*BOTH, "observation", *(f"observation-{n}" for n in range(2, 5))}
    listed = [token for part in parts for token in part.partition("code=")[2].split(",")]
    assert sorted(listed) == sorted(f"http://loinc.org|{c.removeprefix('LOINC//')}" for c in codes)
    assert all(len(part) < 1700 for part in parts)


@pytest.mark.parametrize(
    ("deploy", "told"),
    [
        ({"hooks": ["patient-veiw"]}, "did you mean 'patient-view'"),
        ({"hooks": []}, "at least 1"),
        ({"resources": {"RXNORM": ["MedicationRequests"]}}, "did you mean 'MedicationRequest'"),
        ({"clients": [{"issuer": "a", "keys": "/k"}]}, "need `url`"),
        ({"url": "http://cds.example"}, "https"),
        ({"url": "https://user@cds.example"}, "https"),
        ({"origins": ["https://ehr.example/path"]}, "without a path"),
        ({"origins": ["*"]}, "https"),
        ({"warning": 0.5, "critical": 0.2}, "below `warning`"),
        ({"warning": 2}, "less than or equal to 1"),
        (
            {"suggestions": [{"label": "x", "actions": [{"description": "d", "resource": {}}]}]},
            "`resource` needs its `resourceType`",
        ),
        ({"hook": ["patient-view"]}, "did you mean 'hooks'"),
        ({"source": ""}, "at least 1"),
        (
            {"url": "https://c.example", "clients": [{"issuer": "a", "keys": "http://evil/k"}]},
            "https",
        ),
        (
            {"url": "https://c.example", "clients": [{"issuer": "a", "keys": "/k"}] * 2},
            "one `issuer`",
        ),
        (
            {
                "url": "https://c.example",
                "anonymous": True,
                "clients": [{"issuer": "a", "keys": "/k"}],
            },
            "goes without",
        ),
    ],
)
def test_a_study_that_cannot_be_meant_is_a_fault_with_its_key(deploy, told):
    document = yaml.safe_load(STUDY)
    document["deploy"] = {"cds_hooks": deploy}
    with pytest.raises(StudyError) as caught:
        studies.parse(document, rooms=plugins)
    assert "deploy.cds_hooks" in str(caught.value) and told in str(caught.value)


def test_a_study_with_everything_reads_back_as_itself():
    document = yaml.safe_load(STUDY)
    document["deploy"] = {
        "cds_hooks": {
            "hooks": ["patient-view", "order-sign"],
            "url": "https://cds.example.org/",
            "clients": [
                {
                    "issuer": "https://ehr.example",
                    "keys": "https://ehr.example/jwks",
                    "servers": ["https://ehr.example/fhir/"],
                }
            ],
            "warning": 0.2,
            "critical": 0.5,
            "resources": {"RXNORM": ["MedicationRequest"]},
            "suggestions": [
                {
                    "label": "Order",
                    "actions": [{"description": "d", "resource": {"resourceType": "Task"}}],
                }
            ],
            "feedback": "/var/feedback",
        }
    }
    made = studies.parse(document, rooms=plugins)
    assert studies.parse(made.portable(), rooms=plugins) == made
    hooks = made.deploy.cds_hooks
    assert hooks.url == "https://cds.example.org"
    assert hooks.clients[0].servers == ("https://ehr.example/fhir",)
    assert hooks.clients[0].named == "https://ehr.example/jwks"
