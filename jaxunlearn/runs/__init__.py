"""Runs: the only code that combines settings, the other packages and the run folder. Called by `launch`."""

__all__: list[str] = []  # internal
