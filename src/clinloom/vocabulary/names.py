"""What people call the things behind codes."""

from __future__ import annotations

LOINC = {
    "8867-4": "Heart rate",
    "9279-1": "Respiratory rate",
    "59408-5": "Oxygen saturation",
    "2708-6": "Oxygen saturation, arterial",
    "8310-5": "Body temperature",
    "8480-6": "Systolic blood pressure",
    "8462-4": "Diastolic blood pressure",
    "2160-0": "Creatinine",
    "2345-7": "Glucose",
    "718-7": "Haemoglobin",
    "4548-4": "Haemoglobin A1c",
    "29463-7": "Body weight",
    "8302-2": "Body height",
    "39156-5": "Body mass index",
    "2951-2": "Sodium",
    "2823-3": "Potassium",
    "2075-0": "Chloride",
    "17861-6": "Calcium",
    "3094-0": "Urea nitrogen",
    "6690-2": "White cells",
    "777-3": "Platelets",
    "2524-7": "Lactate",
    "6598-7": "Troponin T",
    "1988-5": "C-reactive protein",
    "1975-2": "Bilirubin",
}
ICD10CM = {
    "I50.9": "Heart failure",
    "J44.9": "Chronic obstructive pulmonary disease",
    "E11.9": "Type 2 diabetes",
    "I10": "Hypertension",
    "N18.3": "Chronic kidney disease, stage 3",
    "N18.30": "Chronic kidney disease, stage 3",
    "J96.01": "Acute respiratory failure with hypoxia",
}
RXNORM = {"4603": "Furosemide", "6918": "Metoprolol", "1191": "Aspirin"}
SNOMED = {"371907003": "Oxygen by nasal cannula"}
KNOWN = {"LOINC": LOINC, "ICD10CM": ICD10CM, "RXNORM": RXNORM, "SNOMED": SNOMED}
