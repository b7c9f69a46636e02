"""Records of reports: a section, and the report of several sections."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn.records import Finding
from jaxunlearn.report.cells import Table

WIDTH_OF_REPR = 100  # characters of the answer in the one line that names a report


class Section(NamedTuple):
    """One section of a report.

    Attributes:
      name: of its files; title: the heading.
      text: sentences before the table and the figure; a blank line starts a new paragraph. May be empty.
      table: or None. The page shows tables of more than 40 rows in a scrollable box with a search field.
      figure: a matplotlib figure, or None.
      findings: the numbers behind it.
      percent: whether the page prints the table's fractions in per cent.
      printed: whether the terminal shows its table.
    """

    name: str
    title: str
    text: str = ""
    table: Table | None = None
    figure: Any = None
    findings: tuple[Finding, ...] = ()
    percent: bool = False
    printed: bool = True


class Report(NamedTuple):
    """The results of an analysis or a study.

    Attributes:
      title: of the page; answer: the result in one paragraph, for files and logs.
      sections: in reading order.
      provenance: what was run, shown at the end of the page.
      summary: (short question, answer in words) in reading order: the first screen, for readers without statistics; it
        covers all of `answer`. A blank line starts a new paragraph. Without a summary, `answer` comes first.
      stem: of the file names: report/STEM.html etc.
      arrays: file name -> arrays to save; listed: file name -> table to save as CSV; records: file name -> plain
        values to save as JSON.
      published: folder name -> (labels, retrained, approaches, accuracies, names), logits to save in the published
        layout.
      notes: what the reader should know, one sentence each: after the first screen; in the terminal below the tables.
      files: (file, content) of what is saved.
      more_findings: numbers that belong to no section.
      width: of tables in the terminal, in characters.
      result: the results as values, for programs; None where an analysis has none.
    """

    title: str
    answer: str
    sections: tuple[Section, ...]
    provenance: Mapping[str, Any]
    summary: tuple[tuple[str, str], ...] = ()
    stem: str = "report"
    arrays: Mapping[str, Mapping[str, Any]] = {}
    listed: Mapping[str, Table] = {}
    records: Mapping[str, Any] = {}
    published: Mapping[str, tuple[Any, ...]] = {}
    notes: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    more_findings: tuple[Finding, ...] = ()
    width: int = 120
    result: Any = None

    @property
    def findings(self) -> list[Finding]:
        """All findings, in order."""
        return [*self.more_findings, *(finding for section in self.sections for finding in section.findings)]

    def __repr__(self) -> str:
        """Returns one line: the arrays and tables of a report would fill pages."""
        text = " ".join((self.summary[0][1] if self.summary else self.answer).split())
        return f"<{type(self).__name__} {self.title!r}: {textwrap.shorten(text, WIDTH_OF_REPR, placeholder=' ...')}>"

    def _repr_html_(self) -> str:
        """Returns the page in a frame of its own, for notebooks."""
        from jaxunlearn.report import page

        return page.frame(self)

    def __str__(self) -> str:
        """Returns the text that launchers print: the first screen, the tables, the notes."""
        from jaxunlearn.report import publish

        return publish.text(self)

    def save(self, folder: str | Path) -> None:
        """Writes page, tables, figures, findings, arrays and lists into a folder, which is created if missing.

        Raises:
          StoreError: the folder cannot be written.
        """
        from jaxunlearn.report import publish

        publish.save(Path(folder), self)
