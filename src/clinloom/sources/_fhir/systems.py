"""Code systems by their FHIR URI, URN or OID, and the short names that codes begin with.

Source: FHIR R4, 4.3.13 "Code Systems", and HL7 Terminology (THO).
"""

from __future__ import annotations

import re

SYSTEMS = {
    "http://loinc.org": "LOINC",
    "urn:oid:2.16.840.1.113883.6.1": "LOINC",
    "http://snomed.info/sct": "SNOMED",
    "urn:oid:2.16.840.1.113883.6.96": "SNOMED",
    "http://hl7.org/fhir/sid/icd-10-cm": "ICD10CM",
    "urn:oid:2.16.840.1.113883.6.90": "ICD10CM",
    "http://hl7.org/fhir/sid/icd-10": "ICD10",
    "urn:oid:2.16.840.1.113883.6.3": "ICD10",
    "http://hl7.org/fhir/sid/icd-10-de": "ICD10GM",
    "http://fhir.de/CodeSystem/bfarm/icd-10-gm": "ICD10GM",
    "http://fhir.de/CodeSystem/dimdi/icd-10-gm": "ICD10GM",
    "http://www.cms.gov/Medicare/Coding/ICD10": "ICD10PCS",
    "http://hl7.org/fhir/sid/icd-10-pcs": "ICD10PCS",
    "urn:oid:2.16.840.1.113883.6.4": "ICD10PCS",
    "http://hl7.org/fhir/sid/icd-9-cm": "ICD9CM",
    "http://terminology.hl7.org/CodeSystem/icd9cm": "ICD9CM",
    "urn:oid:2.16.840.1.113883.6.103": "ICD9CM",
    "http://id.who.int/icd/release/11/mms": "ICD11",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "RXNORM",
    "urn:oid:2.16.840.1.113883.6.88": "RXNORM",
    "http://hl7.org/fhir/sid/ndc": "NDC",
    "urn:oid:2.16.840.1.113883.6.69": "NDC",
    "http://www.whocc.no/atc": "ATC",
    "http://fhir.de/CodeSystem/bfarm/atc": "ATC",
    "http://hl7.org/fhir/sid/cvx": "CVX",
    "urn:oid:2.16.840.1.113883.12.292": "CVX",
    "http://www.ama-assn.org/go/cpt": "CPT",
    "urn:oid:2.16.840.1.113883.6.12": "CPT",
    "https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets": "HCPCS",
    "urn:oid:2.16.840.1.113883.6.285": "HCPCS",
    "http://fhir.de/CodeSystem/bfarm/ops": "OPS",
    "http://dicom.nema.org/resources/ontology/DCM": "DCM",
    "http://unitsofmeasure.org": "UCUM",
    "urn:oid:2.16.840.1.113883.6.8": "UCUM",
    "urn:iso:std:iso:11073:10101": "MDC",
}
KNOWN = tuple(dict.fromkeys(SYSTEMS.values()))


def short(system: str | None) -> str:
    """A system's short name; an unknown one is its last path part in capitals."""
    if not system:
        return "LOCAL"
    uri = system.split("|", 1)[0].rstrip("/")
    name = SYSTEMS.get(uri) or SYSTEMS.get(uri.replace("https://", "http://", 1))
    if name is None and uri.startswith("http://snomed.info/"):
        name = "SNOMED"  # a national edition
    return name or re.split(r"[/:#]", uri)[-1].upper() or "LOCAL"
