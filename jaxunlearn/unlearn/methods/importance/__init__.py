"""Methods that rest on how important each parameter is to the forget set."""

__all__: list[str] = []
