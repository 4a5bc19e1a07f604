"""A bundle as MLflow's own tools load it: ``mlflow models serve``, ``mlflow.pyfunc.load_model``.

No JVM: what scores is the bundle. Events come as a frame of the columns of the events table, a time
with its zone (without one: UTC).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clinloom.deploy.bundle import Bundle


class Model:
    """What MLflow asks."""

    def __init__(self, bundle: Bundle):
        self.bundle = bundle

    def predict(self, events: Any, params: Any = None) -> Any:
        """The predictions of the moments that are due, a frame for a frame."""
        import pandas as pd  # type: ignore[import-untyped]

        given = events.copy()
        if "time" in given:
            given["time"] = pd.to_datetime(given["time"], utc=True).astype("datetime64[us, UTC]")
        found = self.bundle.predict(given)
        return found.drop_columns(["boolean_value"]).to_pandas()


def _load_pyfunc(path: str) -> Model:
    return Model(Bundle.load(Path(path)))
