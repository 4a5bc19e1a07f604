"""Spark, and how kernels ride on it: the session, the workers, the blocks between them."""
