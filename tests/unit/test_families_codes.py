"""`validate --data` tells patterns whose codes their family of features leaves to others."""

from __future__ import annotations

import pytest

from clinloom.run import api
from clinloom.run import look as looking

STUDY = """
name: looked
sources:
  labs: {type: table, path: labs.csv, patient: mrn, time: {column: at}, code: {column: test},
         value: result}
cohort: {index: {at: IN}, outcome: {codes: OUT, within: 30d}, washout: none}
features:
  measurements: {codes: FAMILY}
  codes: {codes: OTHER}
models: [logistic_regression]
"""
ROWS = """mrn,at,test,result
1,2024-01-01,IN,
1,2024-01-02,LAB//crea,1.5
1,2024-01-02,LAB//text,low
1,2024-01-02,DX//I10,
1,2024-01-02,DX//E11,
1,2024-01-02,IMAGE//CR//CHEST//area,4
1,2024-01-02,GENDER//female,
1,2024-01-03,OUT,
"""


def told(folder, *, measurements="LAB//*", codes="DX//*"):
    (folder / "labs.csv").write_text(ROWS)
    text = STUDY.replace("FAMILY", f'"{measurements}"').replace("OTHER", f'"{codes}"')
    (folder / "study.yaml").write_text(text)
    study = api.read_study(folder / "study.yaml")
    return looking.unmatched(study, api.look(study))


def test_patterns_that_their_family_reads_are_not_told(tmp_path):
    assert told(tmp_path) == []
    assert told(tmp_path, measurements="*", codes="*") == []


@pytest.mark.parametrize("pattern", ["DX//*", "LAB//text", "IN"])
def test_measurements_of_codes_without_numbers_are_told(tmp_path, pattern):
    [line] = told(tmp_path, measurements=pattern)
    assert line.startswith(f"features.measurements.codes: '{pattern}' fits ")
    assert "no event of those looked at has a number" in line


def test_codes_that_belong_to_another_family_are_told(tmp_path):
    [line] = told(tmp_path, measurements="IMAGE//*")
    assert line.startswith("features.measurements.codes: 'IMAGE//*' fits only codes that are left")
    [line] = told(tmp_path, codes="GENDER//*")
    assert line.endswith("IMAGE//*, GENDER//*, MEDS_BIRTH")


def test_what_fits_nothing_names_a_near_code_or_the_commonest(tmp_path):
    [line] = told(tmp_path, codes="DX//I1")
    assert line.endswith("'DX//I1'; did you mean 'DX//I10'?")
    [line] = told(tmp_path, codes="XD//*")
    assert line.endswith("'XD//*'; did you mean 'DX//*'?")
    [line] = told(tmp_path, codes="SNOMED//22298006")
    assert "did you mean" not in line
    assert "there are DX//E11, DX//I10, GENDER//female, IMAGE//CR//CHEST//area, IN" in line
