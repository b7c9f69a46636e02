"""Verdicts of an audit: on every request, what they need, and what they become in words."""
