"""Codes for columns of tables: the whole numbers of the Unlearning-Leaks reference for text, numbers and gaps.

Source: data preparation of Unlearning-Leaks (PreprocessAccident.transform_to_num; `sorted_codes`: Adult).
"""

import numpy as np

BINS = 100


def sorted_codes(values: np.ndarray) -> np.ndarray:
    """Codes [N] categories by the sorted order of their distinct values, from 0; missing is a category of its own.

    Example:
      >>> from jaxunlearn.data.formats import encoding
      >>> encoding.sorted_codes(["b", "a", "b"])
      array([1, 0, 1])
    """
    return np.unique(np.asarray(values), return_inverse=True)[1]


def equal_width(values: np.ndarray) -> np.ndarray:
    """Codes [N] floats by 100 bins of equal width between the smallest and the largest: 1 to 100, 101 for NaN.

    A constant column is 100 throughout, a column of gaps 101.
    """
    values = np.asarray(values, np.float64)
    present = values[~np.isnan(values)]
    if not len(present):
        return np.full(len(values), BINS + 1, np.uint32)
    edges = np.linspace(present.min(), present.max(), BINS + 1)
    edges[-1] += 1
    codes = np.searchsorted(edges, values, side="right")
    return np.where(np.isnan(values), BINS + 1, np.minimum(codes, BINS)).astype(np.uint32)


def first_seen(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Codes [N] categories by the order in which they first appear, from 1; a missing value is 0.

    Args:
      values: [N] of one type.
      missing: [N] bool. As published, the first missing value uses up a number, which no category then has.
    """
    values, missing = np.asarray(values), np.asarray(missing, bool)
    _, first, category_of_row = np.unique(values, return_index=True, return_inverse=True)
    # Missing values may be written differently: together they are one value.
    if missing.any():
        first_missing = int(np.flatnonzero(missing)[0])
        merged = np.where(missing, len(first), category_of_row)
        present = np.unique(merged[~missing])
        first_row_of = {int(category): int(first[category]) for category in present} | {len(first): first_missing}
        category_of_row = merged
    else:
        first_row_of = {number: int(category) for number, category in enumerate(first)}
    order = {
        number: rank + 1 for rank, (number, _) in enumerate(sorted(first_row_of.items(), key=lambda item: item[1]))
    }
    codes = np.asarray([order[int(category)] for category in category_of_row], np.uint32)
    return np.where(missing, 0, codes).astype(np.uint32)
