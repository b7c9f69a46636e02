"""The verbs of launch.shadows, targets, unlearn and extract: roles are described, executed and summarised."""

__all__: list[str] = []  # internal
