"""Statistics over many models: components of their variance, the method closest to retraining."""

from jaxunlearn.metrics.populations import closeness, variance

__all__ = ["closeness", "variance"]
