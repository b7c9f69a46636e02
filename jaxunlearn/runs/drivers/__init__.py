"""Entry points of all analyses: a user's arrays (`array_input`) or a run folder (`run_input`) in, a report out."""

__all__: list[str] = []  # internal
