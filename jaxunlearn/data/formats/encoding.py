"""Codes for columns of tables: whole numbers that the Unlearning-Leaks reference gives text, numbers and gaps.

Source: data preparation of Unlearning-Leaks (PreprocessAccident.transform_to_num; `sorted_codes`: Adult).
"""

import numpy as np

BINS = 100


def sorted_codes(values: np.ndarray) -> np.ndarray:
    """Codes [N] categories by the sorted order of their distinct values, from 0; a missing value is one of its own."""
    return np.unique(np.asarray(values), return_inverse=True)[1]


def equal_width(values: np.ndarray) -> np.ndarray:
    """Codes [N] floats by 100 bins of equal width between the smallest and the largest: 1 to 100, 101 for NaN.

    A constant column is 100 throughout, a column of gaps 101.
    """
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    if not len(known):
        return np.full(len(values), BINS + 1, np.uint32)
    edges = np.linspace(known.min(), known.max(), BINS + 1)
    edges[-1] += 1
    codes = np.searchsorted(edges, values, side="right")
    return np.where(np.isnan(values), BINS + 1, np.minimum(codes, BINS)).astype(np.uint32)


def first_seen(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Codes [N] categories by the order in which they first appear, from 1; a missing value is 0.

    Args:
      values: [N] of one type.
      missing: [N] bool. The first missing value takes a number, as published, that no category then has.
    """
    values, missing = np.asarray(values), np.asarray(missing, bool)
    _, first, place = np.unique(values, return_index=True, return_inverse=True)
    # Missing values may be written in any way: together they are one value.
    if missing.any():
        gone = int(np.flatnonzero(missing)[0])
        merged = np.where(missing, len(first), place)
        known = np.unique(merged[~missing])
        begins = {int(one): int(first[one]) for one in known} | {len(first): gone}
        place = merged
    else:
        begins = {number: int(one) for number, one in enumerate(first)}
    order = {number: rank + 1 for rank, (number, _) in enumerate(sorted(begins.items(), key=lambda item: item[1]))}
    codes = np.asarray([order[int(one)] for one in place], np.uint32)
    return np.where(missing, 0, codes).astype(np.uint32)
