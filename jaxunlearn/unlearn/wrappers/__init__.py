"""Methods around methods: METHOD+conformal, +our, +orthogonal, +salient."""

__all__: list[str] = []
