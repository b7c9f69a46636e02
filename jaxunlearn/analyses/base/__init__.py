"""What an analysis is: one record, one line of ANALYSES, and everything else follows.

    gather(recorded run) | from_arrays(a user's arrays) -> Inputs -> analyse -> Result -> compose -> Report

From the record the launchers get their flags, their array input and their run input, the dry run, the report and what
--overwrite deletes. An analysis knows arrays and settings only; files, folders and training are the driver's.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors, records
from jaxunlearn.arrays import ArrayField
from jaxunlearn.report.section import Report, Section
from jaxunlearn.settings import Settings

Inputs = Any
Result = Any
PROMPTED = "prompted:"  # an audited role: the originals, whose forgotten texts are asked for behind a prompt
CLASSES, TEXTS = "classes", "texts"  # what the rows of a run are


class Context(NamedTuple):
    """What an analysis may use besides its inputs.

    Attributes:
      say: tells the user what is going on, one line.
      progress: (done, of, unit, what) a bar, for loops that take a while.
      keep: (name, facts, compute) -> arrays: results under a name that the next call takes up where the facts are
        equal; facts are nested plain values and arrays.
      note: like `say`, for what a reader of the report must know: it stands there too.
    """

    say: Callable[[str], None]
    progress: Callable[[int, int, str, str], None]
    cached: Callable[[str, Any, Callable[[], dict[str, np.ndarray]]], dict[str, np.ndarray]]
    note: Callable[[str], None] = lambda text: None


class RoleLogits(NamedTuple):
    """Recorded logits of one role with what an analysis must know about them.

    Attributes:
      values: [M * K, n, C] read-only memory map; line i * K + k is member i, snapshot k (K = 1 but for snapshots).
      labels: [n] int32.
      rows: [n] int32 rows of the data set, sorted.
      member: [M, n] bool, whether member i trained on the row.
      diverged: member -> step at which it was frozen.
      snapshots: K epochs of the lines of a member; empty for finished weights. Line k of K = B + 1 counts as trained
        to the part k / B on every target row (ScoreUI).
      facts: what identifies the logits.
    """

    values: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    member: np.ndarray
    diverged: dict[int, int]
    snapshots: tuple[int, ...] = ()
    facts: Any = None


class RecordedRun(NamedTuple):
    """A run folder as an analysis sees it.

    Attributes:
      settings: of the run.
      split: who plays which part; split_fingerprint: identifies it.
      rows: [n] int32 sorted rows whose logits are recorded.
      labels: [N] int32 of all rows of the data set; groups: [N] the second labelling, or None.
      names: rows -> arrays that name them in files of results, `rows` and `ids` of the user's own file.
      shown: rows -> [n] text that names them in tables.
      class_names: may be empty; set_names: what to call each forget set.
      roles: recorded roles that the analysis asked for, the shadows first.
      logits: (role, view) -> recorded logits.
      cost: role -> (seconds, retain-epochs), NaN where it was not measured.
      title: role -> its name in tables.
      utility: role -> UA, RA and TA of every model.
      untrained: rows -> [n, C] logits of one untrained network.
      training_mode: (role, rows, batch) -> [M, n, C] logits with BatchNorm in training mode; None where there are none.
      relearned: role -> what the Reminiscence Attack sees of it, relearned where it is not recorded yet;
        check_relearning: raises for a run that cannot be attacked, before anything is trained.
      predicted: [N, T - 1] bool, which predictions of texts count; None for a run of classes. Of texts, `logits` holds
        what `scores.tokens.recorded` makes. texts: [N] the texts themselves, or None.
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
    shown: Callable[[np.ndarray], np.ndarray]
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
      expected: a sentence for errors, what the file should hold.
      from_arrays: (checked arrays, settings) -> Inputs.
    """

    flag: str
    fields: Mapping[str, ArrayField]
    expected: str
    from_arrays: Callable[[Mapping[str, np.ndarray], Settings], Any]


class Analysis(NamedTuple):
    """One line of ANALYSES.

    Attributes:
      section: name of its section of the settings: flags, defaults, help and ranges come from there; "" = none.
      compat: name of its setting in the section compat; "" = none.
      flag: the launcher's flag for a file of arrays.
      fields: arrays that it takes; "*" stands for any other name. ONE reader checks them (`arrays.read`).
      expected: one sentence for error messages: what a file must hold.
      check: settings -> None; raises for what no input can mend.
      from_arrays: (arrays by our names, settings) -> Inputs; raises for arrays that do not fit together.
      roles: settings -> roles of a run folder that it needs; `unlearned` stands for every method of unlearn.methods.
      narrow: settings -> settings with only the models that it needs.
      check_run: refuses a run before anything is trained, first without its folder, then in it (logits may be missing).
      gather: (recorded run, context) -> Inputs.
      describe: (Inputs, settings) -> lines of the dry run: what there is, and what would be done.
      analyse: (Inputs, settings, context) -> Result.
      compose: (Result, settings) -> Report.
      is_plan: settings -> whether they only ask what there is and what it lacks, as a dry run says.
      needs: (settings, split of a run) -> lines: what there will be, and what it lacks; printed for such a plan.
      reads: which kinds of runs it can analyse, of CLASSES and TEXTS.
      outputs: what it owns in a folder, as patterns: --overwrite=NAME deletes them.
      joins: other analyses whose sections its report takes up where the folder holds their results.
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
    """Returns the kind of arrays that a flag asks for; without one the analysis' own."""
    own = ArrayInput(analysis.flag, analysis.fields, analysis.expected, analysis.from_arrays)
    return next((one for one in analysis.further if one.flag == flag), own)


def require_units(settings: Settings) -> None:
    """Refuses repeated forget sets where forget sets are the independent units of every interval.

    Raises:
      ConfigError: split.forget.repeats above 1.
    """
    repeats = settings.split.forget.repeats
    if repeats > 1:
        raise errors.ConfigError(
            f"split.forget.repeats = {repeats} repeats every forget set, but the intervals here take forget sets for "
            "independent. Set it to 1 (and split.forget.count to the number of sets), or compare models of one request "
            "by epsilon-hat: launch.epsilon with the same config."
        )
