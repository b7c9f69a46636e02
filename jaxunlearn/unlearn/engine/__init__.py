"""Runs a method on a whole population: rows of each member, phases as tasks, BatchNorm afterwards, costs."""

__all__: list[str] = []
