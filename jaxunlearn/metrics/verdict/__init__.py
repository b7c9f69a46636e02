"""The verdict on one request: forgotten, not forgotten, suppressed, or cannot tell."""

from jaxunlearn.metrics.verdict import agreement, judge, out_model, power, request, rows

__all__ = ["agreement", "judge", "out_model", "power", "request", "rows"]
