"""What every analysis shares around its three functions: results that are kept, and the report on disk."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxunlearn import errors, progress, store
from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.base import Context
from jaxunlearn.report import publish, tables
from jaxunlearn.report.section import Report, Section


def context(run: store.Run, reporter: progress.Reporter) -> Context:
    """The context of an analysis in an open folder."""

    def advance(done: int, total: int, unit: str, note: str) -> None:
        if done <= 1:
            reporter.begin("analysing")
        reporter.update(done, total, unit, note)

    def keep(name: str, facts: Any, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        path, mark = run.path(name), store.files.fingerprint(facts)
        try:
            stored = store.files.read_npz(path)
            if str(stored.pop("fingerprint", "")) == mark:
                return stored
        except errors.StoreError:
            pass  # missing or damaged: it is computed
        values = compute()
        store.files.write_npz(path, fingerprint=np.asarray(mark), **values)
        return values

    return Context(reporter.say, advance, keep)


def joined_sections(run: store.Run, names: tuple[str, ...]) -> list[Section]:
    """Sections of other analyses whose results lie in the folder; their numbers stand in their own findings."""
    found = []
    for name in names:
        analysis = ANALYSES[name]
        path = run.path(analysis.record)
        if analysis.sections_of is not None and path.exists():
            found += [
                section._replace(findings=(), printed=False)
                for section in analysis.sections_of(store.files.read_json(path))
            ]
    return found


def deliver(run: store.Run, report: Report, settings: Mapping[str, Any], begun: float, facts: Mapping[str, str]) -> str:
    """Writes everything of a report and returns what the terminal shows.

    Args:
      run: the folder.
      report: what to write.
      settings: all settings, for the report's JSON.
      begun: `time.monotonic()` of the start.
      facts: what was run, before the report's own provenance.
    """
    versions = ", ".join(f"{name} {value}" for name, value in store.versions().items())
    timed = {"time": progress.duration(time.monotonic() - begun), "versions": versions}
    report = report._replace(provenance={**facts, **report.provenance, **timed})
    for name, arrays in report.arrays.items():
        store.files.write_npz(run.path(*name.split("/")), **arrays)
    for name, record in report.records.items():
        store.files.write_json(run.path(*name.split("/")), record)
    for folder, logits in report.published.items():
        store.files.remove(run.path(folder))  # approaches of an earlier run are not of this one
        store.approaches.write(run.path(folder), *logits)
    for pattern in (f"report/{report.stem}*", f"report/tables/{report.stem}*"):
        for path in run.root.glob(pattern):  # sections of an earlier call with other choices
            store.files.remove(path)
    publish.publish(run.root, report, settings)
    notes = "".join(f"\nnote: {note}" for note in report.notes)
    files = publish.written(run.root, report, list(report.files))
    return f"{report.answer}\n\n{text(report)}{notes}\n\n{files}"


def text(report: Report) -> str:
    """The tables of a report for the terminal, each with its sentences."""
    return "\n\n\n".join(
        publish.section_text(section, report.width)
        for section in report.sections
        if section.table is not None and section.printed
    )


def described(lines: list[tuple[str, str]]) -> str:
    """The lines of a dry run as a table."""
    return tables.pairs(lines)
