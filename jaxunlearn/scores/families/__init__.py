"""Kernels of the scores, one file per family."""
