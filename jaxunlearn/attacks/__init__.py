"""Attacks on models that were changed on request: what their answers give away."""
