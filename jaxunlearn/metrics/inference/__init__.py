"""What numbers allow to conclude: intervals, p-values, error control, calibration tests."""
