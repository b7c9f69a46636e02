"""Inputs of an audit: signals of all models, gathered from arrays or from a run folder."""

__all__: list[str] = []
