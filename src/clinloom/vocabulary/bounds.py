"""The values that a living patient can have, by code, in the code's canonical unit."""

from __future__ import annotations

Bounds = tuple[float, float]

# (low, high), LOINC codes, parameter names of the PhysioNet/CinC Challenge 2012 (Silva et al.).
# Where no source is given the bounds lie at or beyond the valid range in the benchmark of
# Harutyunyan et al., Sci Data 2019;6:96 (variable ranges), widened to what has been survived.
_TABLE: tuple[tuple[Bounds, str, str], ...] = (
    # Survived hypothermia: 11.8 Cel (Mroczek, Eur J Cardiothorac Surg 2020;58:1091); survived heat
    # stroke: 46.5 Cel (Slovis, Ann Emerg Med 1982;11:269).
    ((11, 47), "8310-5 8331-1 8328-7 8329-5 8332-9 8333-7", "Temp"),
    ((0, 350), "8867-4 8893-0", "HR"),  # /min; 0 is asystole
    ((0, 120), "9279-1", "RespRate"),  # /min, newborns included
    # mm[Hg]; a pressure near 0 is a line that is off or a cuff that is loose.
    ((10, 400), "8480-6", "SysABP NISysABP"),
    ((5, 375), "8462-4", "DiasABP NIDiasABP"),
    ((5, 375), "8478-0", "MAP NIMAP"),
    ((0, 100), "2708-6 59408-5 20564-1", "SaO2"),  # %
    ((15, 100), "3150-6", ""),  # %, inspired oxygen
    ((0.15, 1), "", "FiO2"),  # fraction
    # kg; cm: from the smallest surviving newborns to the heaviest and tallest adults on record.
    ((0.2, 650), "29463-7 3141-9 3142-7 8335-2", "Weight"),
    ((20, 275), "8302-2 8301-4 3137-7 8306-3", "Height"),
    ((15, 80), "9843-4 8287-5", ""),  # cm, head circumference
    ((4, 260), "39156-5", ""),  # kg/m2
    ((3, 15), "9269-2", "GCS"),  # by definition (Teasdale and Jennett, Lancet 1974)
    ((6.3, 8.4), "2744-1 11558-4 2746-6", "pH"),  # blood
    ((1, 300), "2019-8 11557-6", "PaCO2"),  # mm[Hg]
    ((1, 770), "2703-7 11556-8", "PaO2"),  # mm[Hg]; at most ambient pressure
    ((1, 70), "1963-8 2028-9 20565-8 1959-6 1960-4", "HCO3"),  # mmol/L
    ((80, 255), "2951-2 2947-0", "Na"),  # mmol/L
    ((0.5, 20), "2823-3 6298-4", "K"),  # mmol/L
    ((40, 200), "2075-0 2069-3", ""),  # mmol/L, chloride
    ((0.1, 40), "2524-7 32693-4 2518-9", "Lactate"),  # mmol/L
    ((0.01, 100), "2160-0 38483-4", "Creatinine"),  # mg/dL
    ((0, 400), "3094-0 6299-2", "BUN"),  # mg/dL
    ((1, 3000), "2345-7 2339-0 41653-7 1558-6", "Glucose"),  # mg/dL
    ((0, 100), "1975-2 1968-7", "Bilirubin"),  # mg/dL
    ((1, 30), "17861-6 49765-1", ""),  # mg/dL, calcium
    ((0.1, 25), "19123-9", "Mg"),  # mg/dL
    ((0.1, 40), "2777-1", ""),  # mg/dL, phosphate
    ((0.2, 10), "1751-7", "Albumin"),  # g/dL
    ((0.5, 20), "2885-2", ""),  # g/dL, protein
    ((5, 2000), "2093-3 18262-6 13457-7 2089-1", "Cholesterol"),  # mg/dL
    ((1, 500), "2085-9", ""),  # mg/dL, HDL
    ((1, 30000), "2571-8", ""),  # mg/dL, triglycerides
    ((0.5, 30), "718-7 20509-6 30313-1", ""),  # g/dL
    ((1, 80), "4544-3 20570-8", "HCT"),  # %
    ((1, 30), "4548-4", ""),  # %
    ((0, 1500), "6690-2 26464-8", "WBC"),  # 10*3/uL, leukaemia included
    ((0, 5000), "777-3 26515-7", "Platelets"),  # 10*3/uL
    ((0.1, 15), "789-8 26453-1", ""),  # 10*6/uL
    ((0, 50000), "1742-6 1920-8 2532-0", "ALT AST"),  # U/L
    ((0, 20000), "6768-6 2324-2", "ALP"),  # U/L
    ((0, 1000), "1988-5 30522-7", ""),  # mg/L
    ((0, 1000), "6598-7 10839-9", "TroponinI TroponinT TropI TropT"),  # ng/mL
    ((0.2, 50), "6301-6 34714-6", ""),  # INR
    ((0, 20000), "", "Urine"),  # mL a reading
    ((0, 130), "", "Age"),  # years
)
BY_CODE: dict[str, Bounds] = {
    f"{vocabulary}//{name}": bounds
    for bounds, loinc, physionet in _TABLE
    for vocabulary, names in (("LOINC", loinc), ("PHYSIONET", physionet))
    for name in names.split()
}
