"""What every analysis shares around its three functions: results that are kept, and the report on disk."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxunlearn import progress, store
from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.base import Context
from jaxunlearn.report import page, publish, tables
from jaxunlearn.report.section import Report, Section


def context(run: store.Run, reporter: progress.Reporter) -> Context:
    """The context of an analysis in an open folder."""

    def advance(done: int, total: int, unit: str, note: str) -> None:
        if done <= 1:
            reporter.begin("analysing")
        reporter.update(done, total, unit, note)

    def keep(name: str, facts: Any, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        path = run.path(name)
        found = store.kept(run, path, facts)
        return store.keep(path, facts, compute()) if found is None else found

    return Context(reporter.say, advance, keep, reporter.note)


def joined_sections(run: store.Run, names: tuple[str, ...]) -> list[Section]:
    """Sections of other analyses whose results lie in the folder; their numbers stand in their own findings."""
    found = []
    for name in names:
        analysis = ANALYSES[name]
        path = run.path(analysis.record)
        if analysis.sections_of is None or not path.exists():
            continue
        record = store.files.read_json(path)
        try:
            sections = analysis.sections_of(record)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise store.files.damaged(path, f"it holds no results of {name}") from error
        found += [section._replace(findings=(), printed=False) for section in sections]
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
    run.delete(f"report/{report.stem}*", f"report/tables/{report.stem}*")  # what an earlier call with others left
    for name, arrays in report.arrays.items():
        store.files.write_npz(run.path(*name.split("/")), **arrays)
    for name, table in report.listed.items():
        page.save_text(run.path(*name.split("/")), tables.csv(table))
    for name, record in report.records.items():
        store.files.write_json(run.path(*name.split("/")), record)
    for folder, logits in report.published.items():
        run.delete(folder)  # approaches of an earlier run are not of this one
        store.approaches.write(run.path(folder), *logits)
    publish.publish(run.output, report, settings)
    return f"{report}\n\n{publish.written(run.root, report, list(report.files))}"


def described(lines: list[tuple[str, str]]) -> str:
    """The lines of a dry run as a table."""
    return tables.pairs(lines)
