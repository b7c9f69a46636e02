"""Data sets by where they come from: one family of sources per file."""

__all__: list[str] = []
