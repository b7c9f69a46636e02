"""Architectures by family: builders of flax linen modules."""
