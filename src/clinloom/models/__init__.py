"""Models: one file, one algorithm of ``pyspark.ml``.

A file gives ``TITLE``, ``REQUIRES`` (the extra that installs what it needs, or None), ``Options``,
``QUICK`` (options of a grid of one point that fits in seconds: a first look, and what the contract
tests try the model with), ``WEIGHTS`` (does the estimator take weights), ``MISSING`` (does it take
missing values as such), ``CONNECT`` (does it run over Spark Connect), ``TOLERANCE`` (how far the
scorer may lie from Spark: ``learn.algorithm.EXACT``, but for a reason), ``MARGIN`` (None, or what
makes log-odds of the difference of raw predictions, of a model whose probabilities do not serve),
``grid(options)``,
``estimator(options, point, features=, seed=)``, ``flatten(fitted, saved) -> arrays`` (``saved()``
gives the nodes of a tree model), ``probability(arrays, x) -> (n,)`` in NumPy with Spark's
arithmetic, and ``importance(arrays, features)``. Nothing at a file's top imports Spark: the service
loads it too.
"""
