"""Metrics: numbers with intervals, from scores and truth. One definition each; published variants by argument."""
