"""Layers of which networks are built (`blocks`), and the convolution with its implementations (`conv`)."""

__all__: list[str] = []
