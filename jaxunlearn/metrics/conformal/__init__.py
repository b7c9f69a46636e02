"""Split conformal prediction: thresholds, prediction sets, coverage."""
