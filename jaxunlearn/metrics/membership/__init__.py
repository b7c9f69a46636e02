"""Membership attacks on the outputs of one model."""
