"""What the report says in words: metrics, rules, reasons and the glossary."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """A metric's name, what it tells, and which way is better."""

    title: str
    meaning: str
    better: str


APART, ACTED, TRUSTED = "Telling patients apart", "At the threshold", "Can the risks be believed?"
METRICS = {
    APART: {
        "auroc": Metric(
            "AUROC",
            "of a patient with and one without the outcome, how often the former gets the higher"
            " risk; 0.5 is chance",
            "higher is better",
        ),
        "auprc": Metric(
            "AUPRC",
            "precision averaged over recall; chance is the share of patients with the outcome",
            "higher is better",
        ),
    },
    ACTED: {
        "recall": Metric(
            "Recall (sensitivity)", "share of those with the outcome who are flagged", "higher"
        ),
        "specificity": Metric(
            "Specificity", "share of those without the outcome who are not flagged", "higher"
        ),
        "precision": Metric(
            "Precision (PPV)", "share of those flagged who have the outcome", "higher"
        ),
        "f1": Metric("F1", "the harmonic mean of precision and recall", "higher"),
        "npv": Metric("NPV", "share of those not flagged who do not have the outcome", "higher"),
        "accuracy": Metric("Accuracy", "share of all who are called rightly", "higher"),
        "balanced_accuracy": Metric(
            "Balanced accuracy", "the mean of recall and specificity; 0.5 is chance", "higher"
        ),
        "mcc": Metric("Matthews correlation", "of flag and outcome; 0 is chance", "higher"),
        "number_needed": Metric(
            "Number needed to evaluate", "flagged patients for one with the outcome", "lower"
        ),
        "alert_rate": Metric("Alert rate", "share of all who are flagged", "as can be borne"),
    },
    TRUSTED: {
        "brier": Metric("Brier score", "mean squared error of the risks", "lower is better"),
        "brier_scaled": Metric(
            "Scaled Brier score", "1 is perfect, 0 no better than telling all the mean", "higher"
        ),
        "calibration_slope": Metric(
            "Calibration slope", "below 1 the risks are too extreme, above 1 too timid", "ideal 1"
        ),
        "calibration_intercept": Metric(
            "Calibration intercept",
            "below 0 the risks are too high on average, above 0 too low",
            "ideal 0",
        ),
        "observed_expected": Metric(
            "Observed / expected", "outcomes for each that the risks add up to", "ideal 1"
        ),
        "ici": Metric("ICI", "mean distance of risks to the flexible calibration curve", "lower"),
        "e50": Metric("E50", "the median of that distance", "lower"),
        "e90": Metric("E90", "nine in ten distances are smaller", "lower"),
    },
}
RULES = {
    "absent_image": "named in the manifest, but no such file",
    "absent_unit": "no unit given; the usual one was assumed",
    "after_death": "fact long after the death",
    "ambiguous_in_manifest": "image that the manifest tells twice, differently",
    "ambiguous_date": "date that could be either of two days",
    "assumed_zone": "time of which neither the data nor the study tells the zone",
    "answer": "answer that belongs to the code",
    "before_birth": "fact before the birth",
    "beyond_extent": "patient seen long after all others: not what the data reach to",
    "by_reference": "medicine, which is a fact only where a prescription points to it",
    "contested_record": "record of several patients, too many to be corrections: all were kept",
    "date_format": "date in another form than declared, read all the same",
    "decoder_crashed": "image that ends its decoder",
    "decoder_hung": "image that its decoder does not finish",
    "decoder_missing": "image whose decoder is not installed (pip install 'clinloom[dicom]')",
    "duplicate": "the same fact told more than once",
    "empty_cell": "empty cell of a wide table",
    "empty_file": "empty file",
    "free_text": "text that is no coded answer: no feature reads it",
    "impossible_birth": "birth that most of the patient's facts contradict",
    "impossible_death": "death that most of the patient's facts contradict",
    "impossible_time": "time that no patient can have",
    "identifier_system": "identifier of a system that joins no records",
    "implausible_time": "image of a year that cannot be",
    "impossible_value": "value that no living patient can have",
    "invalid_date": "date that does not exist or cannot be read",
    "known_at_end": "known at the end of its day, month or year",
    "late_result": "result released later than the sample was taken",
    "malformed_encoding": "text in a broken encoding",
    "malformed_json": "broken record (not valid JSON)",
    "malformed_resource": "record in a form that the standard does not allow",
    "malformed_row": "row with too few or too many fields",
    "missing_value": "a value was due but absent",
    "mixed_units": "value in another unit, converted",
    "no_code": "no code given",
    "no_hour": "time of which a day, a month or a year is told",
    "no_patient": "no patient given",
    "no_recording": "condition whose time of recording is not told",
    "no_release": "result whose time of release is not told",
    "no_time": "no time given",
    "not_an_image": "file that is no image",
    "not_dicom": "file that is no DICOM object",
    "not_done": "recorded as not done",
    "not_in_manifest": "image that the manifest does not name",
    "not_read": "kind of record that is not read",
    "other_coding": "code in a further system, left out",
    "outlier": "value below the 2nd or above the 98th percentile of the training rows (of rare"
    " ones, the outermost thousandth), drawn in to that bound",
    "oversized_image": "image too large to be safe",
    "placeholder_identifier": "identifier that is nobody's, such as UNKNOWN, not used to join",
    "placeholder_patient": "record of nobody: UNKNOWN, 000000 and the like",
    "pixelless_dicom": "DICOM object without an image",
    "reassigned": "record that a later version tells of another patient",
    "recorded_early": "condition recorded before it began",
    "reference_server": "reference that names a server, taken as the source's own",
    "released_early": "result released before it was made",
    "several_units": "unit that nothing converts to the one in which most numbers came",
    "shared_identifier": "identifier of implausibly many records, not used to join",
    "superseded": "earlier version of a record",
    "text_like_number": "text of digits that is no number as it stands, kept as text",
    "timed_by_delay": "result timed by the study's delay after its sample",
    "timed_by_onset": "condition timed by its onset",
    "timed_by_sample": "result timed by its sample",
    "timed_by_release": "result timed by when it was released",
    "too_large": "file that unpacks to more than the study allows",
    "truncated_dicom": "DICOM file that breaks off",
    "truncated_image": "image that breaks off",
    "two_identifiers": "patients known by two identifiers, joined",
    "undecodable_dicom": "image that cannot be decoded",
    "unit_spelling": "unit written in another way",
    "unknown_status": "record of a status that the standard does not know",
    "unknown_unit": "unit that cannot be converted",
    "unmeasurable_image": "image that cannot be measured",
    "unreadable_dicom": "DICOM file that cannot be read",
    "unreadable_file": "file that cannot be read",
    "unsupported_transfer_syntax": "image compressed in a way that cannot be read here",
    "withdrawn": "record that was withdrawn later",
}
GLOSSARY = {
    "Calibration": "Whether predicted risks come true: of patients given a risk of 20%, one in"
    " five should have the outcome.",
    "Decision curve": "Net benefit over thresholds. A model is worth using where its line lies"
    " above both treating everybody and treating nobody.",
    "Fold": "A part of the patients set aside in turn: to choose a model's settings without"
    " touching those who judge it or, where all are judged in turn, to be judged.",
    "Interval": "The range in which the number would probably lie in other samples of such"
    " patients, from resampling patients; 95% unless the study asks for another.",
    "Leakage": "A feature that knows the future. The audit takes the future away, then poisons it,"
    " and computes some 2,000 rows again; nothing may change.",
    "Net benefit": "True positives less false alarms, weighed by the threshold, per patient. A"
    " threshold of 10% says that nine false alarms are worth one outcome found.",
    "Prediction moment": "When the risk is predicted. Only what was known before it is used. A"
    " patient may have several.",
    "Prevalence": "Share of patients (or prediction moments) with the outcome.",
    "Test patients": "Patients whom the model that judges them did not see while it was trained:"
    " a part set aside or, in turn, all. Every result here, unless said otherwise, is theirs.",
    "Threshold": "The risk from which on a patient is flagged, chosen on rows that fits in folds"
    " left out.",
}


def rule(text: str) -> str:
    """A rule or reason in words."""
    return RULES.get(text, text.replace("_", " "))


def sentence(text: str) -> str:
    """The text with a capital at the start."""
    return text[:1].upper() + text[1:]
