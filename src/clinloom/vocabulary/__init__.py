"""Names, units and bounds of clinical codes: data, not code."""
