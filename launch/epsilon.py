"""epsilon-hat and the challenge score of unlearning approaches, from logits of many retrained and unlearned models.

    python -m launch.epsilon --data=DIR --all [--delta=0.05] [--metric=epsilon|challenge|both] [--out=DIR]
    python -m launch.epsilon --data=my.npz --approach=mine,theirs --samples=0,17

DIR in the published layout (logits_retain.npy, APPROACH/logits_unlearn.npy with the one-hot label in slot 0,
metrics.csv), or an .npz with `labels` [S], `retrained` [S, N, C] and one such array per approach; predictions [S, N]
for a regression (README). Prints one table of all approaches: median, quartiles, infinite, undefined and negative
samples, accuracies, with intervals over models; what is proved; the challenge score. Writes epsilon.npz (per sample, in
the order given), curves against delta, histograms of single samples, report/epsilon.html. HIGHER epsilon = easier to
tell apart = worse.
"""

import sys

from absl import flags

from launch import _entry

CHOSEN = {"delta": "delta", "metric": "metric", "score": "score", "sweep": "sweep", "bootstrap": "bootstrap",
          "level": "level"}  # fmt: skip


def define(values: flags.FlagValues) -> None:
    """Adds the flags of this verb."""
    flags.DEFINE_string("data", "", "folder in the published layout, or an .npz", flag_values=values)
    flags.DEFINE_string("out", "", "folder for the results; runs/<name of the data> if not given", flag_values=values)
    flags.DEFINE_bool("all", False, "every approach (the default unless --approach names some)", flag_values=values)
    flags.DEFINE_list("approach", [], "approaches; baseline = the retrained models split in two", flag_values=values)
    flags.DEFINE_float("delta", 0.05, "delta of epsilon-hat, in [0, 1)", flag_values=values)
    flags.DEFINE_string("metric", "both", "epsilon, challenge, or both", flag_values=values)
    flags.DEFINE_string("score", "gaussian", "attack score: gaussian, loss, margin", flag_values=values)
    flags.DEFINE_bool("sweep", True, "medians for delta = 0.00 ... 0.98", flag_values=values)
    flags.DEFINE_list("samples", [], "samples whose margins are drawn; empty = from hard to easy", flag_values=values)
    flags.DEFINE_integer("bootstrap", 200, "resamples of the models for intervals; 0 = none", flag_values=values)
    flags.DEFINE_float("level", 0.95, "level of intervals and lower bounds", flag_values=values)
    flags.DEFINE_integer("seed", 0, "seed of the resamples", flag_values=values)
    flags.DEFINE_string("compat", "corrected", "corrected, or faithful (loss score with the label row as a model)",
                        flag_values=values)  # fmt: skip


def alone(values: flags.FlagValues) -> str:
    """The run folder."""
    return _entry.folder_of(values["data"].value, values["out"].value)


def command(request: _entry.Request) -> None:
    """Measures, then prints the answer, the tables and where the files are."""
    from jaxunlearn import errors, progress
    from jaxunlearn.protocols.epsilon import door

    given = {name: request.flags[name].value for name in request.flags}
    if not given["data"] or given["config"] is not None:
        raise errors.ConfigError(
            "give --data=DIR (logits of retrained and unlearned models). To train the models too: python -m "
            "launch.study --config=configs/forget_precision.py"
        )
    if given["all"] and given["approach"]:
        raise errors.ConfigError("give --all or --approach, not both.")
    try:
        samples = tuple(int(one) for one in given["samples"])
    except ValueError as error:
        raise errors.ConfigError(f"--samples={','.join(given['samples'])}: expected whole numbers.") from error
    chosen = {name: given[flag] for name, flag in CHOSEN.items()}
    wanted = door.Request(given["data"], tuple(given["approach"]), samples, given["compat"], given["seed"], chosen)
    progress.show(door.measure_data(wanted, request.workdir, request.overwrite, request.dry_run))


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or "", define=define, alone=alone))
