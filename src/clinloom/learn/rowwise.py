"""Products that round the same for a row whatever rows stand beside it.

A product of matrices may add up in another order for another number of rows, so that one patient's
risk would differ in its last bit between a request and a batch, and equal risks would not be equal.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def product(x: Floats, weights: Floats) -> Floats:
    """``x @ weights`` of (n, f) and (f,) or (f, m), each row added up by itself."""
    if weights.ndim == 1:
        return np.asarray((x * weights).sum(axis=1))
    return np.stack([(x * column).sum(axis=1) for column in weights.T], axis=1)
