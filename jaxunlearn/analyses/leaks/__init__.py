"""Unlearning-Leaks as an analysis: posteriors of both versions in, what they reveal out."""
