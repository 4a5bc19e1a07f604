"""Putting a model to work: the bundle, and the scorer that needs no Spark."""
