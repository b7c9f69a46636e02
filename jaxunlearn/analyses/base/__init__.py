"""The interface of an analysis: one record, one line of ANALYSES, and everything else follows.

    gather(recorded run) | from_arrays(a user's arrays) -> Inputs -> analyse -> Result -> compose -> Report

From the record the launchers derive their flags, array input, run input, dry run, report and the files that
--overwrite deletes. An analysis knows arrays and settings only; files, folders and training belong to the driver.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors, records
from jaxunlearn.arrays import ArrayField
from jaxunlearn.report.section import Report, Section
from jaxunlearn.settings import Settings

__all__ = [
    "Analysis", "ArrayInput", "CLASSES", "Context", "Inputs", "PROMPTED", "RecordedRun", "Result", "RoleLogits",
    "TEXTS", "array_input", "require_units",
]  # fmt: skip

Inputs = Any
Result = Any
PROMPTED = "prompted:"  # an audited role: the originals, queried for forgotten texts behind a prompt
SMALL_AUC = 0.65  # an attack that finds nothing shows something only if its interval ends below this
CLASSES, TEXTS = "classes", "texts"  # kinds of runs, by their rows


class Context(NamedTuple):
    """Services that an analysis may use in addition to its inputs.

    Attributes:
      log: shows the user one line about the current step.
      progress: (done, of, unit, what) a bar, for loops that take a while.
      cached: (name, facts, compute) -> arrays: results stored under a name and reused by the next call with equal
        facts; facts are nested plain values and arrays.
      note: like `log`, for remarks that the report repeats.
    """

    log: Callable[[str], None]
    progress: Callable[[int, int, str, str], None]
    cached: Callable[[str, Any, Callable[[], dict[str, np.ndarray]]], dict[str, np.ndarray]]
    note: Callable[[str], None] = lambda text: None


class RoleLogits(NamedTuple):
    """Recorded logits of one role and their description.

    Attributes:
      values: [M * K, n, C] read-only memory map; index i * K + k is member i, snapshot k (K = 1 without snapshots).
      labels: [n] int32.
      rows: [n] int32 rows of the data set, sorted.
      member: [M, n] bool, whether member i trained on the row.
      diverged: member -> step at which it was frozen.
      snapshots: K epochs of a member; empty for finished weights. Snapshot k of K = B + 1 counts as trained to the
        degree k / B on every target row (ScoreUI).
      facts: identify the logits.
    """

    values: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    member: np.ndarray
    diverged: dict[int, int]
    snapshots: tuple[int, ...] = ()
    facts: Any = None

    def positions(self, rows: records.Array) -> np.ndarray:
        """Returns where rows of the data set lie among the recorded ones; raises a DataError if one is missing."""
        return records.positions(self.rows, rows)


class RecordedRun(NamedTuple):
    """A run folder as seen by an analysis.

    Attributes:
      settings: of the run.
      split: rows of all subsets; split_fingerprint: identifies it.
      rows: [n] int32 sorted rows whose logits are recorded.
      labels: [N] int32 of all rows of the data set; groups: [N] the second labelling, or None.
      names: rows -> arrays that name them in result files: `rows`, and `ids` of the user's own file.
      display_names: rows -> [n] text that names them in tables.
      class_names: may be empty; set_names: name of each forget set.
      roles: recorded roles that the analysis requires, shadows first.
      logits: (role, view) -> recorded logits.
      cost: role -> (seconds, retain-epochs), NaN if not measured.
      title: role -> its name in tables.
      utility: role -> UA, RA and TA of every model.
      untrained: rows -> [n, C] logits of one untrained network.
      training_mode: (role, rows, batch) -> [M, n, C] logits with BatchNorm in training mode; None without BatchNorm.
      relearned: role -> trials of the Reminiscence Attack, computed unless they are recorded; check_relearning: raises
        for a run that cannot be attacked, before anything is trained.
      predicted: [N, T - 1] bool, which predictions of texts count; None for a run of classes. For texts, `logits` holds
        the output of `scores.tokens.recorded`. texts: [N] the texts themselves, or None.
      external_shadows: (folder of another run, options of scores) -> (name, (Signals of its shadow models on the
        target rows, on the population rows, on their own training rows)).
    """

    settings: Settings
    split: records.Split
    split_fingerprint: str
    rows: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None
    names: Callable[[np.ndarray], dict[str, np.ndarray]]
    display_names: Callable[[np.ndarray], np.ndarray]
    class_names: tuple[str, ...]
    set_names: tuple[str, ...]
    roles: tuple[str, ...]
    logits: Callable[..., RoleLogits]
    cost: Callable[[str], tuple[float, float]]
    title: Callable[[str], str]
    utility: Callable[[str], dict[str, np.ndarray]]
    untrained: Callable[[np.ndarray], np.ndarray]
    training_mode: Callable[[str, np.ndarray, int], np.ndarray | None]
    external_shadows: Callable[..., tuple[str, tuple[Any, ...]]]
    relearned: Callable[[str], Any]
    check_relearning: Callable[[], None]
    predicted: np.ndarray | None = None
    texts: np.ndarray | None = None


class ArrayInput(NamedTuple):
    """One kind of arrays that an analysis reads from a user.

    Attributes:
      flag: the launcher's flag for a file of them; fields: their table.
      expected: a sentence for error messages: the content of such a file.
      from_arrays: (checked arrays, settings) -> Inputs.
    """

    flag: str
    fields: Mapping[str, ArrayField]
    expected: str
    from_arrays: Callable[[Mapping[str, np.ndarray], Settings], Any]


class Analysis(NamedTuple):
    """One line of ANALYSES.

    Attributes:
      section: name of its section of the settings, the source of flags, defaults, help and ranges; "" = none.
      compat: name of its setting in the section compat; "" = none.
      flag: the launcher's flag for a file of arrays.
      fields: arrays that it takes; "*" stands for any other name. `arrays.read` checks them.
      expected: one sentence for error messages: the required content of a file.
      check: settings -> None; raises for settings that are invalid with any input.
      from_arrays: (arrays by our names, settings) -> Inputs; raises for inconsistent arrays.
      roles: settings -> roles of a run folder that it needs; `unlearned` stands for every method of unlearn.methods.
      narrow: settings -> settings with only the models that it needs.
      check_run: refuses a run before anything is trained, first without its folder, then in it (logits may be missing).
      gather: (recorded run, context) -> Inputs.
      describe: (Inputs, settings) -> lines of the dry run: the inputs, and the work to be done.
      analyse: (Inputs, settings, context) -> Result.
      compose: (Result, settings) -> Report.
      is_plan: settings -> whether they request only a list of available and missing inputs, as in a dry run.
      needs: (settings, split of a run) -> lines of that list for a run.
      kinds: kinds of runs that it can analyse, of CLASSES and TEXTS.
      outputs: files that it owns in a folder, as patterns: --overwrite=NAME deletes them.
      joins: other analyses whose sections its report includes if the folder holds their results.
      further: other kinds of arrays that it reads.
      record: JSON file from which `sections_of` rebuilds the sections for such a report; "" = none.
    """

    section: str
    compat: str
    flag: str
    fields: Mapping[str, ArrayField]
    expected: str
    check: Callable[[Settings], None]
    from_arrays: Callable[[Mapping[str, np.ndarray], Settings], Inputs]
    roles: Callable[[Settings], tuple[str, ...]]
    check_run: Callable[[RecordedRun], None]
    gather: Callable[[RecordedRun, Context], Inputs]
    describe: Callable[[Inputs, Settings], list[tuple[str, str]]]
    analyse: Callable[[Inputs, Settings, Context], Result]
    compose: Callable[[Result, Settings], Report]
    outputs: tuple[str, ...]
    joins: tuple[str, ...] = ()
    record: str = ""
    further: tuple[ArrayInput, ...] = ()
    is_plan: Callable[[Settings], bool] = lambda settings: False
    needs: Callable[[Settings, records.Split], list[tuple[str, str]]] = lambda settings, split: []
    narrow: Callable[[Settings], Settings] = lambda settings: settings
    kinds: tuple[str, ...] = (CLASSES,)
    sections_of: Callable[[Any], list[Section]] | None = None


def array_input(analysis: Analysis, flag: str = "") -> ArrayInput:
    """Returns the kind of arrays that a flag of the launcher reads; the main one without a flag.

    Example:
      >>> from jaxunlearn import analyses
      >>> from jaxunlearn.analyses.base import array_input
      >>> array_input(analyses.ANALYSES["audit"]).flag, array_input(analyses.ANALYSES["audit"], "tokens").flag
      ('evidence', 'tokens')
    """
    main = ArrayInput(analysis.flag, analysis.fields, analysis.expected, analysis.from_arrays)
    return next((kind for kind in analysis.further if kind.flag == flag), main)


def require_units(settings: Settings) -> None:
    """Refuses repeated forget sets, for analyses whose intervals take forget sets as independent units.

    Raises:
      ConfigError: split.forget.repeats above 1.

    Example:
      >>> from jaxunlearn import settings
      >>> from jaxunlearn.analyses.base import require_units
      >>> require_units(settings.resolve({}))
    """
    repeats = settings.split.forget.repeats
    if repeats > 1:
        raise errors.ConfigError(
            f"split.forget.repeats = {repeats} repeats every forget set, but the intervals here treat forget sets "
            "as independent. Set it to 1 (and split.forget.count to the number of sets), or compare models of one "
            "request by epsilon-hat: launch.epsilon with the same config."
        )
