"""A photograph examined, in a process apart: its size and what its pixels measure."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from clinloom.errors import DataError
from clinloom.radiomics import measure
from clinloom.sources._images.header import Refused


def examine(data: bytes, told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """``rows``, ``columns`` and ``measurements``, or ``refused``: the reason."""
    try:
        pixels = _pixels(data)
        rows, columns = pixels.shape[:2]
        yield {"rows": rows, "columns": columns, "measurements": measure(pixels)}
    except Refused as refusal:
        yield {"refused": refusal.args[0]}
    except DataError:
        yield {"refused": "unmeasurable_image"}


def _pixels(data: bytes) -> np.ndarray:
    """The pixels: gray (H, W) as stored (8 to 32 bits), or RGB (H, W, 3) uint8."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image: Any = Image.open(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refused("oversized_image") from None
    except MemoryError:
        raise
    except Exception:  # a header may be broken in any way
        raise Refused("not_an_image") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if image.mode in ("1", "LA", "La"):
                image = image.convert("L")
            elif image.mode not in ("L", "RGB", "F", "I") and not image.mode.startswith("I;"):
                image = image.convert("RGB")
            return np.asarray(image)
    except MemoryError:
        raise
    except Exception:  # a decoder may fail in any way
        raise Refused("truncated_image") from None
