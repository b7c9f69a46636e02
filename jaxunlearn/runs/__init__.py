"""Protocols: one function per experiment; the only code that joins settings, rooms and the run folder."""
