"""Audits forgetting: every score, its quality against exact retraining, and a verdict for every single sample.

    python -m launch.audit --config=configs/digits.py
    python -m launch.audit --config=configs/digits.py --config.audit.protocol=shadow_sweep
    python -m launch.audit --config=configs/cifar10.py --config.audit.protocol=shift \
        --config.audit.shadow_runs=runs/cinic10
    python -m launch.audit --evidence=my.npz --out=DIR [--dataset=cifar10] [--scores=iam_on,lira_off]

With a config, shadows, originals and retrains that are missing are trained first; finished ones are reused. With
--evidence, an .npz of logits from any framework is enough: `unlearned` [n, c], `labels` [n] and as many of `original`
[n, c], `shadows` [s, n, c], `forgotten` [n] ... as there are (README). Writes scores, findings.json, tables, figures
and report/report.html.
"""

import sys

from absl import flags

from launch import _entry

CHOICES = ("scores", "dataset", "compat", "forget_type", "decision", "calibration", "level", "levels")


def define(values: flags.FlagValues) -> None:
    """Adds the flags of the evidence door."""
    flags.DEFINE_string("evidence", "", "an .npz (or folder of .npy) of logits; needs no config", flag_values=values)
    flags.DEFINE_string("out", "", "folder for the results of --evidence; runs/<file> if not given", flag_values=values)
    flags.DEFINE_list("scores", ["all"], "scores of the table, or my_module:my_score", flag_values=values)
    flags.DEFINE_string("dataset", "", "data set whose published constants are used", flag_values=values)
    flags.DEFINE_string("compat", "corrected", "corrected, or faithful to the published formulas", flag_values=values)
    flags.DEFINE_string("forget_type", "set_random", "set_random or class: the form of faithful LiRA-Off",
                        flag_values=values)  # fmt: skip
    flags.DEFINE_string("decision", "auto", "score of the per-sample verdicts, or none", flag_values=values)
    flags.DEFINE_string("calibration", "auto", "null of the verdicts: auto, shadows, population", flag_values=values)
    flags.DEFINE_float("level", 0.05, "false discovery rate of the verdicts", flag_values=values)
    flags.DEFINE_integer("levels", 0, "IAM's interpolation levels; 0 = the file's own, else 100", flag_values=values)


def alone(values: flags.FlagValues) -> str:
    """The run folder of an evidence audit; empty for one with a config."""
    return _entry.folder_of(values["evidence"].value, values["out"].value)


def command(request: _entry.Request) -> None:
    """Plans or audits, then prints the answer, the tables and where the files are."""
    from jaxunlearn import errors, progress

    given = request.flags
    if given["evidence"].value:
        from jaxunlearn.protocols.audit import door, evidence

        if given["config"].value is not None:
            raise errors.ConfigError("give --config (a run) or --evidence (arrays), not both.")
        chosen = {name: given[name].value for name in CHOICES}
        chosen["scores"] = tuple(chosen["scores"])
        wanted = evidence.Request(path=given["evidence"].value, **chosen)
        progress.show(door.audit_file(wanted, request.workdir, request.overwrite, request.dry_run))
        return
    from jaxunlearn.protocols.audit import runs

    misplaced = [name for name in ("out", *CHOICES) if given[name].present]
    if misplaced:
        raise errors.ConfigError(
            f"--{misplaced[0]} belongs to --evidence. With a config use --config.audit.* (--print_config shows them)."
        )
    progress.show(
        runs.from_config(request.settings, request.workdir, request.overwrite, request.dry_run, request.overrides)
    )


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or "", define=define, alone=alone))
