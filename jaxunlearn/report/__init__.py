"""Reports: findings as sentences, tables, figures and pages. Functions take records and return text or figures.

    section      what a report consists of                  sentences      findings in words
    cells        tables and their cells                     number_format  numbers as text
    tables       terminal, Markdown, LaTeX, CSV             page, publish  HTML and files on disk
    figures/     matplotlib figures                         theme          their colours and layout

Example: `Report("Audit", "The answer in words.", (Section("scores", "Scores", table=table),), {}).save("folder")`.
"""

from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.section import Report, Section

__all__ = ["Cell", "Report", "Section", "Table"]
