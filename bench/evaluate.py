"""All metrics with patient-clustered intervals on a million predictions, beside scikit-learn.

    python bench/evaluate.py [rows] [replicates]

Ours: every metric, flags at seven other points, tenths and decision curve, and three subgroups, as
Spark's workers compute them, in as many processes as there are cores. scikit-learn: AUROC, average
precision, Brier score, calibration slope, and confusion matrices at six thresholds, weighted by the
same draws, in as many processes; five replicates a process, from which the rest is extrapolated.
Prints seconds by the clock and of the processors, for the machine may be busy.
"""

from __future__ import annotations

import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from os import sched_getaffinity

import numpy as np

from clinloom import evaluate
from clinloom.evaluate import Judged, bootstrap
from clinloom.evaluate.points import Asked
from clinloom.evaluate.subgroups import Cut, Grouped, Pairs
from clinloom.learn.risks import Risks

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)
THRESHOLD, FEW = 0.25, 5
ASKED = Asked(THRESHOLDS, alert_rates=(0.1,), sensitivities=(0.8,))
CORES = len(sched_getaffinity(0))


@cache
def rows(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Subject, label and risk; two rows a patient, about."""
    rng = np.random.default_rng(0)
    odds = rng.normal(-2, 1.3, count)
    label = rng.random(count) < 1 / (1 + np.exp(-odds))
    return np.sort(rng.integers(0, count // 2, count)), label, 1 / (1 + np.exp(-odds))


def ours(count: int, judged: Judged, block: range) -> np.ndarray:
    """The numbers of a block of replicates."""
    subject, label, risk = rows(count)
    pairs = Pairs(np.arange(count), subject % 3)
    grouped = Grouped(Cut.of(judged.risks, THRESHOLD), 3, len(block))
    chunk = (subject, label, risk[:, None], pairs)
    found = evaluate.replicated([chunk], [judged], block, seed=0, grouped=grouped)[0]
    grouped.measured()
    return found


def theirs(count: int, number: int) -> list[float]:
    """One replicate by scikit-learn."""
    from sklearn import linear_model, metrics

    subject, label, risk = rows(count)
    weight = bootstrap.times(subject, [number], seed=0)[0]
    odds = np.log(risk / (1 - risk))[:, None]
    slope = linear_model.LogisticRegression(C=np.inf).fit(odds, label, sample_weight=weight)
    out = [
        metrics.roc_auc_score(label, risk, sample_weight=weight),
        metrics.average_precision_score(label, risk, sample_weight=weight),
        metrics.brier_score_loss(label, risk, sample_weight=weight),
        slope.coef_[0, 0],
    ]
    for threshold in (THRESHOLD, *THRESHOLDS):
        matrix = metrics.confusion_matrix(label, risk >= threshold, sample_weight=weight)
        out += matrix.ravel().tolist()
    return out


def spent() -> float:
    """Processor seconds of this process and of those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(work, parts: list) -> tuple[list, float, float]:
    """What the parts gave, and the seconds that they took, by the clock and of the processors."""
    begun, used = time.perf_counter(), spent()
    with ProcessPoolExecutor(CORES, mp_context=get_context("fork")) as pool:
        found = list(pool.map(work, *zip(*parts, strict=True)))
    return found, time.perf_counter() - begun, spent() - used


def main() -> None:
    """Time both and print the ratio."""
    count, replicates = (int(a) for a in (sys.argv[1:] + ["1000000", "1000"][len(sys.argv) - 1 :]))
    from sklearn import linear_model, metrics  # noqa: F401 - before the processes, which share it

    subject, label, risk = rows(count)
    judged = Judged.of(Risks.of(label, risk).compact(), THRESHOLD, ASKED)
    blocks = evaluate.blocks(replicates, len(judged.risks.score), least=CORES)
    drawn, clock, used = timed(ours, [(count, judged, block) for block in blocks])
    told = evaluate.summed_up(np.concatenate(drawn), judged, confidence=0.95)
    made = FEW * CORES
    peer, peer_clock, peer_used = timed(theirs, [(count, n) for n in range(1, made + 1)])
    scale = replicates / made
    print(f"{count:,} rows, {replicates:,} replicates, {CORES} cores")
    print(f"ours: {clock:.1f} s by the clock, {used:.1f} s of processors")
    print(
        f"scikit-learn, extrapolated from {made}: {peer_clock * scale:.0f} s by the clock,"
        f" {peer_used * scale:.0f} s of processors, {peer_used * scale / used:.0f} times ours"
    )
    first = np.concatenate(drawn)[1]
    print(f"AUROC {told['test']['auroc']}; of replicate 1: {first[0]:.9f}, theirs {peer[0][0]:.9f}")


if __name__ == "__main__":
    main()
