"""Methods for language models."""

__all__: list[str] = []
