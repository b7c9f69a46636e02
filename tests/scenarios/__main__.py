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
    arguments = parser.parse_args()
    only, results = arguments.only.split(","), {}
    if "rows" in only:
        measured = list(lines.every_line(arguments.cache))
        results |= {"rows": tables.rows_table(measured), "requests": tables.requests_table(measured),
                  "models": tables.models_table(measured)}  # fmt: skip
    if "planning" in only:
        results["planning"] = tables.planning_table(list(lines.planning(arguments.cache)))
    if "location" in only and arguments.location:
        results["location"] = tables.location_table(
            arguments.location, f"{arguments.cache}/location" if arguments.cache else ""
        )
    if "retrains" in only:
        results["retrains"] = tables.other_retrains_table(arguments.cache)
    if "references" in only:
        results["references"] = tables.references_table(arguments.cache)
    if "texts" in only:
        results["texts"] = texts.table()
    document = Path(arguments.out)
    document.write_text(tables.inserted(document.read_text(), results))


if __name__ == "__main__":
    main()
