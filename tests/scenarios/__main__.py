"""Runs the whole study and writes its tables into a document.

python -m tests.scenarios --out=docs/verdict.md --cache=FOLDER [--location=location30.npz] [--only=rows,planning]
"""

import argparse
import os
from pathlib import Path

from tests.scenarios import lines, location, tables, texts


def main() -> None:
    """Measures what the document has marks for; what is in the cache is not measured again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="document with marks, see tables.inserted")
    parser.add_argument("--cache", default="", help="folder for finished arrays and lines; empty = start anew")
    parser.add_argument("--location", default=os.environ.get(location.DATA, ""), help="location30.npz; empty = skip")
    parser.add_argument("--only", default="rows,planning,location,retrains,references,texts", help="what to measure")
    given = parser.parse_args()
    only, found = given.only.split(","), {}
    if "rows" in only:
        measured = list(lines.every_line(given.cache))
        found |= {"rows": tables.rows_table(measured), "requests": tables.requests_table(measured),
                  "models": tables.models_table(measured)}  # fmt: skip
    if "planning" in only:
        found["planning"] = tables.planning_table(list(lines.planning(given.cache)))
    if "location" in only and given.location:
        found["location"] = tables.location_table(given.location, f"{given.cache}/location" if given.cache else "")
    if "retrains" in only:
        found["retrains"] = tables.other_retrains_table(given.cache)
    if "references" in only:
        found["references"] = tables.references_table(given.cache)
    if "texts" in only:
        found["texts"] = texts.table()
    document = Path(given.out)
    document.write_text(tables.inserted(document.read_text(), found))


if __name__ == "__main__":
    main()
