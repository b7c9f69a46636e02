"""Runs a method on a whole population: who reads what, phases as tasks, BatchNorm afterwards, what it costs."""
