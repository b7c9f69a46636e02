"""Shared by all analyses: cached results, and the report on disk."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxunlearn import progress, store
from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.base import Context
from jaxunlearn.report import page, publish, tables
from jaxunlearn.report.section import Report, Section


def context(run_folder: store.Run, reporter: progress.Reporter) -> Context:
    """Returns the context of an analysis in an open folder."""

    def advance(done: int, total: int, unit: str, note: str) -> None:
        if done <= 1:
            reporter.begin("analysing")
        reporter.update(done, total, unit, note)

    def cached(name: str, facts: Any, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        path = run_folder.path(name)
        stored_arrays = store.load_cached(run_folder, path, facts)
        return store.save_cached(path, facts, compute()) if stored_arrays is None else stored_arrays

    return Context(reporter.log, advance, cached, reporter.note)


def joined_sections(run_folder: store.Run, names: tuple[str, ...]) -> list[Section]:
    """Returns sections of other analyses whose results are in the folder, without their findings."""
    all_sections = []
    for name in names:
        analysis = ANALYSES[name]
        path = run_folder.path(analysis.record)
        if analysis.sections_of is None or not path.exists():
            continue
        record = store.files.read_json(path)
        try:
            sections = analysis.sections_of(record)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise store.files.damaged(path, f"it contains no results of {name}") from error
        all_sections += [section._replace(findings=(), printed=False) for section in sections]
    return all_sections


def deliver(
    run_folder: store.Run, report: Report, settings: Mapping[str, Any], start_time: float, facts: Mapping[str, str]
) -> str:
    """Writes all files of a report and returns the text for the terminal.

    Args:
      run_folder: the run folder.
      report: the report.
      settings: all settings, for the report's JSON.
      start_time: `time.monotonic()` of the start.
      facts: provenance of the run, in front of the report's own.
    """
    versions = ", ".join(f"{name} {value}" for name, value in store.versions().items())
    timing_facts = {"time": progress.duration(time.monotonic() - start_time), "versions": versions}
    report = report._replace(provenance={**facts, **report.provenance, **timing_facts})
    run_folder.delete(
        f"report/{report.stem}*", f"report/tables/{report.stem}*"
    )  # files of an earlier call with other settings
    for name, arrays in report.arrays.items():
        store.files.write_npz(run_folder.path(*name.split("/")), **arrays)
    for name, table in report.listed.items():
        page.save_text(run_folder.path(*name.split("/")), tables.csv(table))
    for name, record in report.records.items():
        store.files.write_json(run_folder.path(*name.split("/")), record)
    for folder, logits in report.published.items():
        run_folder.delete(folder)  # approaches of an earlier call
        store.published_layout.write(run_folder.path(folder), *logits)
    publish.publish(run_folder.output, report, settings)
    return f"{report}\n\n{publish.list_files(run_folder.root, report, list(report.files))}"


def plan_table(rows: list[tuple[str, str]]) -> str:
    """Returns the rows of a dry run as a table."""
    return tables.pairs(rows)
