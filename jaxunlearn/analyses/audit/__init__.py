"""The audit: membership scores, their quality, and a verdict for every single sample."""

__all__: list[str] = []
