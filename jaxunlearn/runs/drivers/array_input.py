"""Arrays from any framework in, a report out, for every analysis. No model code is loaded.

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
    """Analyses a file (or folder) of arrays. Returns the text for the terminal.

    Args:
      name: of ANALYSES.
      path: an .npz, a folder of .npy files, or a folder of logits in the published layout.
      settings: resolved; those about models and data are ignored.
      out: folder for the results.
      overwrite: analyses whose results are deleted first.
      dry_run: whether to only describe what would be done.
      probabilities: whether the outputs are probabilities, whose logarithm is taken.
      flag: the launcher's flag that selects the kind of arrays; empty = the analysis' default.

    Raises:
      UserError: invalid file, arrays or settings, before anything is written.
    """
    start_time = time.monotonic()
    analysis = ANALYSES[name]
    analysis.check(settings)
    kind = array_input(analysis, flag)
    named_arrays, notes = read(store.arrays.expand(path), kind)
    values = arrays.read(named_arrays, kind.fields, kind.expected, probabilities=probabilities)
    inputs = kind.from_arrays(values, settings)
    if dry_run or analysis.is_plan(settings):
        return delivery.plan_table([*analysis.describe(inputs, settings), *[("note", note) for note in notes]])
    section = {name: value for name, value in to_dict(settings).items() if name in (analysis.section, "compat", "seed")}
    request: dict[str, Any] = {kind.flag: path, "probabilities": probabilities, **section}
    with store.open_run(out, overwrite, owned_outputs()) as run_folder, store.status(run_folder, request, {}):
        facts = {"arrays": fingerprint(values)}
        store.claim(run_folder, name, run_folder.path(f"arrays_{name}.json"), facts, 1)
        reporter = progress.Reporter(run_folder.log)
        context = delivery.context(run_folder, reporter)
        report = analysis.compose(analysis.analyse(inputs, settings, context), settings)
        report = report._replace(notes=(*notes, *reporter.notes, *report.notes))
        return delivery.deliver(run_folder, report, request, start_time, {"arrays": path})


def read(path: Path, kind: Analysis | ArrayInput) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the arrays of a file or folder by their names there; also returns notes for the user."""
    if store.published_layout.is_folder(path):
        return store.published_layout.as_arrays(path)
    if store.signal_files.is_folder(path):
        return store.signal_files.as_arrays(path), []
    return store.arrays.read(path, kind.expected), []


def fingerprint(values: dict[str, np.ndarray]) -> str:
    """Returns a fingerprint of all arrays, so that results of other arrays are never overwritten unless requested."""
    # One model at a time: published arrays are transposed views, which a hash of the whole array would copy.
    facts = {
        name: [list(np.shape(array)), *(store.files.checksum(np.asarray(block)) for block in _blocks(array))]
        for name, array in values.items()
    }
    return store.files.fingerprint(facts)


def _blocks(array: np.ndarray) -> Any:
    return array if np.ndim(array) > 2 else [np.asarray(array)]
