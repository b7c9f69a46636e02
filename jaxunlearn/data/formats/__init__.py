"""File formats: checked paths, arrays, pictures, coded columns; the published permutations."""

from jaxunlearn.data.formats import arrays

__all__ = ["arrays"]
