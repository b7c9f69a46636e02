"""Evaluates unlearned models: utility, membership attacks, distances, and conformal numbers (CR, MIACR).

    python -m launch.evaluate --config=configs/digits.py
    python -m launch.evaluate --config=configs/digits.py --config.unlearn.methods=finetune,finetune+conformal
    python -m launch.evaluate --logits=my.npz --out=DIR [--alphas=0.05,0.1] [--score=aps]

With a config, shadows, originals, exact retrains and methods that are missing are made first; finished ones are reused.
With --logits, an .npz (or folder of .npy) of outputs from any framework is enough: `calibration`, `forget`, `test` and
`retain` [n, c] (or [m, n, c] of m models) with `calibration_labels` ... [n]; `retrained_forget` ... and `original_...`
stand beside it (README). Writes evaluation.json, tables, a figure and report/evaluation.html.
"""

import sys

from absl import flags

from launch import _entry

NUMBERS = {"alphas": "alphas", "headline": "headline", "score": "score", "rank": "rank", "attack": "miacr_attack",
           "svc_rows": "svc_rows", "strict": "strict", "metrics": "metrics", "qhat": "qhat",
           "miacr_alpha": "miacr_alpha", "raps_lam": "raps_lam", "raps_k_reg": "raps_k_reg"}  # fmt: skip


def define(values: flags.FlagValues) -> None:
    """Adds the flags of the door for arrays."""
    flags.DEFINE_string("logits", "", "an .npz (or folder of .npy) of logits; needs no config", flag_values=values)
    flags.DEFINE_string("out", "", "folder for the results of --logits; runs/<file> if not given", flag_values=values)
    flags.DEFINE_bool("probabilities", False, "the arrays are softmax probabilities", flag_values=values)
    flags.DEFINE_list("alphas", ["0.05", "0.1", "0.15", "0.2"], "levels of the prediction sets", flag_values=values)
    flags.DEFINE_float("headline", 0.0, "the level of the tables; 0 = 0.1, or the first", flag_values=values)
    flags.DEFINE_string("score", "lac", "non-conformity: lac, log, aps, raps", flag_values=values)
    flags.DEFINE_string("rank", "reference", "rank of the threshold: reference, textbook", flag_values=values)
    flags.DEFINE_string("attack", "threshold", "MIACR: threshold or svc", flag_values=values)
    flags.DEFINE_integer("svc_rows", 2000, "SVC attacks: shadow samples per side; 0 = all", flag_values=values)
    flags.DEFINE_string("qhat", "retain", "threshold of forgotten classes: retain, or own (calibration_forget)",
                        flag_values=values)  # fmt: skip
    flags.DEFINE_float("miacr_alpha", 0.05, "MIACR: level", flag_values=values)
    flags.DEFINE_float("raps_lam", 0.01, "raps: penalty per label behind place raps_k_reg", flag_values=values)
    flags.DEFINE_integer("raps_k_reg", 5, "raps: labels without penalty", flag_values=values)
    flags.DEFINE_bool("strict", True, "too small a calibration set, or one that lacks a class, is an error",
                      flag_values=values)  # fmt: skip
    flags.DEFINE_list("metrics", ["all"], "svc, thresholds, entropy, distances, conformal, miacr", flag_values=values)
    flags.DEFINE_string("compat", "corrected", "corrected, or faithful to published quirks", flag_values=values)


def alone(values: flags.FlagValues) -> str:
    """The run folder of an evaluation of arrays; empty for one with a config."""
    return _entry.folder_of(values["logits"].value, values["out"].value)


def command(request: _entry.Request) -> None:
    """Plans or evaluates, then prints the answer, the tables and where the files are."""
    from jaxunlearn import errors, progress

    given = request.flags
    if given["logits"].value:
        from jaxunlearn.protocols.evaluation import door

        if given["config"].value is not None:
            raise errors.ConfigError("give --config (a run) or --logits (arrays), not both.")
        chosen = {name: given[flag].value for flag, name in NUMBERS.items()}
        wanted = door.Request(given["logits"].value, given["probabilities"].value, given["compat"].value, chosen)
        progress.show(door.evaluate_file(wanted, request.workdir, request.overwrite, request.dry_run))
        return
    from jaxunlearn.protocols.evaluation import runs

    misplaced = [name for name in ("out", "probabilities", "compat", *NUMBERS) if given[name].present]
    if misplaced:
        raise errors.ConfigError(
            f"--{misplaced[0]} belongs to --logits. With a config use --config.evaluate.* (--print_config shows them)."
        )
    progress.show(
        runs.from_config(request.settings, request.workdir, request.overwrite, request.dry_run, request.overrides)
    )


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or "", define=define, alone=alone))
