"""Architectures by family: builders of flax linen modules, offered by name in `models.MODELS`."""

__all__: list[str] = []
