"""Peak rates of devices, and the share of them that a measurement reaches."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Name -> type of the operands and precision of their products: None is a GPU's default, TF32 for float32.
ARITHMETIC: dict[str, tuple[str, str | None]] = {
    "bf16": ("bfloat16", None), "tf32": ("float32", None), "f32": ("float32", "float32"),
}  # fmt: skip
# Dense rates of the data sheets in operations per second (multiply-add = 2), and memory bandwidth in bytes per second.
# The first name that occurs in a device's name as a whole word counts.
DATA_SHEETS: dict[str, dict[str, float]] = {
    "H200": {"bf16": 989e12, "tf32": 494e12, "f32": 67e12, "copy": 4.8e12},
    "H100 NVL": {"bf16": 835e12, "tf32": 418e12, "f32": 60e12, "copy": 3.9e12},
    "H100 PCIe": {"bf16": 756e12, "tf32": 378e12, "f32": 51e12, "copy": 2.0e12},
    "H100": {"bf16": 989e12, "tf32": 494e12, "f32": 67e12, "copy": 3.35e12},
    "B200": {"bf16": 2250e12, "tf32": 1100e12, "f32": 80e12, "copy": 8.0e12},
    "A100-SXM4-40GB": {"bf16": 312e12, "tf32": 156e12, "f32": 19.5e12, "copy": 1.555e12},
    "A100": {"bf16": 312e12, "tf32": 156e12, "f32": 19.5e12, "copy": 2.04e12},
    "L40S": {"bf16": 362e12, "tf32": 183e12, "f32": 91.6e12, "copy": 0.864e12},
    "L4": {"bf16": 121e12, "tf32": 60e12, "f32": 30e12, "copy": 0.3e12},
    "RTX 4090": {"bf16": 165e12, "tf32": 82.6e12, "f32": 82.6e12, "copy": 1.01e12},
}


def data_sheet(device_kind: str) -> dict[str, float]:
    """Returns the data sheet's rates of a device; {} if it is not in the table."""
    return next((rates for name, rates in DATA_SHEETS.items() if re.search(rf"\b{name}\b", device_kind)), {})


def with_share(row: Mapping[str, Any], rates: Mapping[str, float], source: str) -> dict[str, Any]:
    """Adds `share` and `share_of` to a row: the larger of its shares of the arithmetic and of the memory bandwidth.

    Args:
      row: may hold `operation_rate` (per second) with `arithmetic` (bf16, tf32 or f32), and `byte_rate` (per second).
      rates: peak rates by arithmetic, and `copy`; an absent one gives no share.
      source: of the rates: "measured" or "data sheet".

    Returns:
      A copy; `share` is None if nothing can be compared.
    """
    arithmetic = row.get("arithmetic", "")
    pairs = [(row.get("operation_rate"), arithmetic, f"{source} {arithmetic} matrix rate"),
             (row.get("byte_rate"), "copy", f"{source} copy bandwidth")]  # fmt: skip
    shares = [(rate / rates[peak], name) for rate, peak, name in pairs if rate and rates.get(peak)]
    share, name = max(shares, default=(None, ""))
    return {**row, "share": share, "share_of": name}


def learn(rates: dict[str, float], row: Mapping[str, Any]) -> None:
    """Adds the peak that a row of section 1 measured."""
    if row.get("section") != 1 or row.get("status") != "ok":
        return
    if row.get("operation_rate"):
        rates[row["arithmetic"]] = row["operation_rate"]
    if row.get("byte_rate"):
        rates["copy"] = row["byte_rate"]


def with_shares(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Adds to rows of one machine their shares of the peaks that are among these rows, in any order."""
    rates: dict[str, float] = {}
    for row in rows:
        learn(rates, row)
    return [dict(row) if row.get("section") == 1 else with_share(row, rates, "measured") for row in rows]
