"""Verdicts of an audit: on every request, with the models that they need and their wording."""

__all__: list[str] = []
