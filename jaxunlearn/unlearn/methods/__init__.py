"""Methods by family: one file each, one line per method in the registry."""

__all__: list[str] = []
