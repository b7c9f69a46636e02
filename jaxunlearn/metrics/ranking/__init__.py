"""How well scores rank samples: tables over forget sets, the bootstrap, ScoreUI, per class, words alone."""

from jaxunlearn.metrics.ranking import bootstrap, classes, correlation, pooled, wording

__all__ = ["bootstrap", "classes", "correlation", "pooled", "wording"]
