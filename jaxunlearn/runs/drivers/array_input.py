"""Arrays from any framework in, a report out: the one way for every analysis. No model code is loaded.

store.arrays.read (files) -> arrays.read (the analysis' field table) -> from_arrays -> analyse -> compose -> deliver
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxunlearn import arrays, progress, store
from jaxunlearn.analyses import ANALYSES, owned_outputs
from jaxunlearn.analyses.base import Analysis, ArrayInput, array_input
from jaxunlearn.runs.drivers import delivery
from jaxunlearn.settings import Settings, to_dict


def run(
    name: str,
    path: str,
    settings: Settings,
    out: str,
    overwrite: tuple[str, ...],
    dry_run: bool,
    probabilities: bool,
    flag: str = "",
) -> str:
    """Analyses a file (or folder) of arrays. Returns what the terminal shows.

    Args:
      name: of ANALYSES.
      path: an .npz, a folder of .npy files, or a folder of logits in the published layout.
      settings: resolved; what concerns models and data is not read.
      out: folder for the results.
      overwrite: analyses whose results are deleted first.
      dry_run: only say what would be done.
      probabilities: the outputs are probabilities, of which the logarithm is taken.
      flag: which kind of arrays, by the launcher's flag; empty = the analysis' own.

    Raises:
      UserError: bad file, arrays or choices, before anything is written.
    """
    begun = time.monotonic()
    analysis = ANALYSES[name]
    analysis.check(settings)
    kind = array_input(analysis, flag)
    named, notes = read(store.arrays.expand(path), kind)
    values = arrays.read(named, kind.fields, kind.expected, probabilities=probabilities)
    inputs = kind.from_arrays(values, settings)
    if dry_run or analysis.is_plan(settings):
        return delivery.described([*analysis.describe(inputs, settings), *[("note", note) for note in notes]])
    section = {name: value for name, value in to_dict(settings).items() if name in (analysis.section, "compat", "seed")}
    request: dict[str, Any] = {kind.flag: path, "probabilities": probabilities, **section}
    with store.open_run(out, overwrite, owned_outputs()) as folder, store.status(folder, request, {}):
        facts = {"arrays": fingerprint(values)}
        store.claim(folder, name, folder.path(f"arrays_{name}.json"), facts, 1)
        reporter = progress.Reporter(folder.log)
        context = delivery.context(folder, reporter)
        report = analysis.compose(analysis.analyse(inputs, settings, context), settings)
        report = report._replace(notes=(*notes, *reporter.notes, *report.notes))
        return delivery.deliver(folder, report, request, begun, {"arrays": path})


def read(path: Path, kind: Analysis | ArrayInput) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays of a file or folder by the names they have there, and what the user should know of them."""
    if store.approaches.is_folder(path):
        return store.approaches.as_arrays(path)
    if store.signal_files.is_folder(path):
        return store.signal_files.as_arrays(path), []
    return store.arrays.read(path, kind.expected), []


def fingerprint(values: dict[str, np.ndarray]) -> str:
    """Of all arrays, so that results of other arrays are never overwritten unasked."""
    # One model at a time: published arrays are transposed views, which a hash of the whole would copy.
    facts = {
        name: [list(np.shape(array)), *(store.files.checksum(np.asarray(line)) for line in _lines(array))]
        for name, array in values.items()
    }
    return store.files.fingerprint(facts)


def _lines(array: np.ndarray) -> Any:
    return array if np.ndim(array) > 2 else [np.asarray(array)]
