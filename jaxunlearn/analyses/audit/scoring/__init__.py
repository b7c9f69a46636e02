"""Scores of an audit: binary (BinUI), against the amount of training (ScoreUI), sweeps, per class."""

__all__: list[str] = []
