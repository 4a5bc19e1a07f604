"""Each number's definition: how it is computed, and who defined it so."""

from __future__ import annotations

from typing import NamedTuple


class Definition(NamedTuple):
    """A number's title, its formula in words and signs, and its source."""

    title: str
    formula: str
    source: str


SIGNS = (
    "y: 1 for a row with the outcome, else 0; p: its risk; n: rows. TP, FP, TN, FN: rows flagged"
    " rightly and wrongly, not flagged rightly and wrongly."
)
TESTS = "Altman and Bland, BMJ 308 (1994) 1552"
VALUES = "Altman and Bland, BMJ 309 (1994) 102"
ALERTS = "Romero-Brufau et al., Crit. Care 19 (2015) 285"
DEFINITIONS = {
    "interval": Definition(
        "Intervals",
        "percentiles of the number over resamples in which each patient, with all rows, counts"
        " Poisson(1) times; differences are taken within each resample",
        "Hanley and MacGibbon, Comput. Methods Programs Biomed. 83 (2006) 57",
    ),
    "auroc": Definition(
        "AUROC",
        "P(p of a row with the outcome > p of one without) + ½ P(they are equal)",
        "Hanley and McNeil, Radiology 143 (1982) 29",
    ),
    "auprc": Definition(
        "AUPRC",
        "Σ (recall at k − recall at k−1) × precision at k, over distinct risks: average precision",
        "Davis and Goadrich, ICML (2006) 233",
    ),
    "recall": Definition("Recall (sensitivity)", "TP / (TP + FN)", TESTS),
    "specificity": Definition("Specificity", "TN / (TN + FP)", TESTS),
    "precision": Definition("Precision (PPV)", "TP / (TP + FP)", VALUES),
    "npv": Definition("Negative predictive value", "TN / (TN + FN)", VALUES),
    "f1": Definition(
        "F1", "2 TP / (2 TP + FP + FN)", "van Rijsbergen, Information Retrieval (1979)"
    ),
    "accuracy": Definition("Accuracy", "(TP + TN) / n", TESTS),
    "balanced_accuracy": Definition(
        "Balanced accuracy", "(recall + specificity) / 2", "Brodersen et al., ICPR (2010) 3121"
    ),
    "mcc": Definition(
        "Matthews correlation",
        "(TP·TN − FP·FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN))",
        "Matthews, Biochim. Biophys. Acta 405 (1975) 442",
    ),
    "number_needed": Definition(
        "Number needed to evaluate",
        "(TP + FP) / TP: flagged rows for one with the outcome",
        ALERTS,
    ),
    "alert_rate": Definition("Alert rate", "(TP + FP) / n", ALERTS),
    "brier": Definition("Brier score", "Σ (p − y)² / n", "Brier, Mon. Weather Rev. 78 (1950) 1"),
    "brier_scaled": Definition(
        "Scaled Brier score",
        "1 − Brier score / (q (1 − q)), where q is the share with the outcome",
        "Steyerberg et al., Epidemiology 21 (2010) 128",
    ),
    "calibration_slope": Definition(
        "Calibration slope",
        "b in logit P(y = 1) = a + b logit(p), by maximum likelihood",
        "Cox, Biometrika 45 (1958) 562",
    ),
    "calibration_intercept": Definition(
        "Calibration intercept (in the large)",
        "a in logit P(y = 1) = a + logit(p), by maximum likelihood",
        "Van Calster et al., BMC Medicine 17 (2019) 230",
    ),
    "observed_expected": Definition(
        "Observed / expected", "Σ y / Σ p", "Debray et al., BMJ 356 (2017) i6460"
    ),
    "ici": Definition(
        "ICI",
        "mean of |c(p) − p|, where c is the flexible calibration curve",
        "Austin and Steyerberg, Stat. Med. 38 (2019) 4051",
    ),
    "e50": Definition(
        "E50", "median of |c(p) − p|", "Austin and Steyerberg, Stat. Med. 38 (2019) 4051"
    ),
    "e90": Definition(
        "E90", "90th percentile of |c(p) − p|", "Austin and Steyerberg, Stat. Med. 38 (2019) 4051"
    ),
    "flexible": Definition(
        "Flexible calibration curve",
        "logistic regression of y on a restricted cubic spline of logit(p) with knots at its 5th,"
        " 35th, 65th and 95th percentile",
        "Harrell, Regression Modeling Strategies (2015), 2.4.6; Austin, Harrell and van Klaveren,"
        " Stat. Med. 39 (2020) 2714",
    ),
    "tenths": Definition(
        "Tenths by risk",
        "rows in ten parts of equal size by p, rows of equal risk together: mean p against mean y",
        "Van Calster et al., J. Clin. Epidemiol. 74 (2016) 167",
    ),
    "net_benefit": Definition(
        "Net benefit",
        "TP / n − FP / n × t / (1 − t) at the threshold t; of treating all: every row is flagged",
        "Vickers and Elkin, Med. Decis. Making 26 (2006) 565",
    ),
    "difference": Definition(
        "Difference to the rest",
        "the number of the subgroup's rows less that of all other rows",
        "Altman and Bland, BMJ 326 (2003) 219",
    ),
    "equal_opportunity_difference": Definition(
        "Equal opportunity difference",
        "recall of the subgroup − recall of the rest; 0 is equal",
        "Hardt, Price and Srebro, NeurIPS 29 (2016)",
    ),
    "predictive_parity_difference": Definition(
        "Predictive parity difference",
        "precision of the subgroup − precision of the rest; 0 is equal",
        "Chouldechova, Big Data 5 (2017) 153",
    ),
    "alert_rate_ratio": Definition(
        "Alert rate ratio",
        "alert rate of the subgroup / alert rate of the rest; 1 is equal",
        "Feldman et al., KDD (2015) 259",
    ),
    "smd": Definition(
        "Standardised difference",
        "(mean with the outcome − mean without) / √((variance with + variance without) / 2)",
        "Austin, Commun. Stat. Simul. Comput. 38 (2009) 1228",
    ),
    "permutation": Definition(
        "Permutation importance",
        "AUROC − AUROC after the feature's values changed places among rows",
        "Breiman, Machine Learning 45 (2001) 5; Fisher, Rudin and Dominici, J. Mach. Learn. Res. 20"
        " (2019) 177",
    ),
    "contribution": Definition(
        "Mean contribution",
        "mean of |φ| over rows: φ is the feature's Shapley value in the path-dependent game of the"
        " trees, or coefficient × (value − mean) of a linear model",
        "Lundberg et al., Nat. Mach. Intell. 2 (2020) 56",
    ),
}
