"""What a report consists of: sections, and the report that joins them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn.records import Finding
from jaxunlearn.report.cells import Table


class Section(NamedTuple):
    """One section of a report.

    Attributes:
      name: of its files; title: the heading.
      text: sentences before the table and the figure; a blank line starts a new paragraph. May be empty.
      table: or None. The page shows more than 40 rows in a box of its own, with a search field.
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
    """Everything that an analysis or a study has to say.

    Attributes:
      title: of the page; answer: the result in one paragraph, for files and logs.
      sections: in the order in which they are read.
      provenance: what was run, for the foot of the page.
      summary: (short question, answer in words) in the order in which they are read: the first screen, for readers
        without statistics, saying all that `answer` says; a blank line starts a new paragraph. Without it, `answer`
        stands first.
      stem: names the files, report/STEM.html and so on.
      arrays: file name -> arrays to save; listed: file name -> table to save as CSV; records: file name -> plain
        values to save as JSON.
      published: folder name -> (labels, retrained, approaches, accuracies, names), logits to save as published.
      notes: what the reader should know, a sentence each: after the first screen, in the terminal under the tables.
      files: (file, what it holds) of what is saved.
      more_findings: numbers that stand in no section.
      width: columns of the tables in the terminal.
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

    @property
    def findings(self) -> list[Finding]:
        """All findings, in order."""
        return [*self.more_findings, *(finding for section in self.sections for finding in section.findings)]

    def __str__(self) -> str:
        """What a launcher prints of it: the first screen, the tables, the notes."""
        from jaxunlearn.report import publish

        return publish.text(self)

    def save(self, folder: str | Path) -> None:
        """Writes page, tables, figures, findings, arrays and lists into a folder, which is made if it is not there.

        Raises:
          StoreError: cannot be written.
        """
        from jaxunlearn.report import publish

        publish.save(Path(folder), self)
