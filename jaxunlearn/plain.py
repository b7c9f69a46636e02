"""Plain values: records, tuples and NumPy arrays as JSON that every reader accepts."""

import json
import math
from typing import Any

import numpy as np


def to_json(value: Any, indent: int | None = 1) -> str:
    """Returns strict JSON text of nested plain values, arrays and named tuples.

    JSON knows neither NaN nor infinity: NaN, a number that is not known, becomes null; infinities become the strings
    "inf" and "-inf". Named tuples become objects, other tuples lists, keys strings, and anything else its `str`.
    """
    return json.dumps(to_plain(value), indent=indent, allow_nan=False)


def to_plain(value: Any) -> Any:
    """Returns the value as dicts, lists, strings, finite numbers, booleans and None (see `to_json`)."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if math.isfinite(number):
            return number
        return None if math.isnan(number) else "inf" if number > 0 else "-inf"
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, dict):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return to_plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value)


def to_number(value: Any) -> float:
    """Returns a number that `to_plain` has written: null is NaN, "inf" and "-inf" are infinite."""
    return math.nan if value is None else float(value)
