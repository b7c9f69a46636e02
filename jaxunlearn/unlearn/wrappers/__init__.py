"""Methods around methods: METHOD+conformal, +our, +orthogonal, +salient."""
