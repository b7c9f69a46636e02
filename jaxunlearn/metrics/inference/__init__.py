"""Statistical inference: intervals, error control, calibration tests."""

from jaxunlearn.metrics.inference import calibration_test, decision, intervals

__all__ = ["calibration_test", "decision", "intervals"]
