"""The audit: evidence in, an answer for every single sample out.

run folder (shadows, originals, retrains: trained if missing) or a file of arrays
  -> scores -> scoreboard, levels, verdicts -> scores/*.npz, findings.json, report/
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from jaxunlearn import errors, progress, scores, settings, store
from jaxunlearn.data import naming
from jaxunlearn.protocols import opening, plan, shadows, splits, target_roles, targets, workbench
from jaxunlearn.protocols.audit import (
    answers,
    binui,
    class_report,
    foreign,
    judging,
    presenting,
    publishing,
    scoreui,
    sweeps,
    verdicts,
)
from jaxunlearn.protocols.audit import bank as banks
from jaxunlearn.protocols.evaluation import presenting as evaluation
from jaxunlearn.protocols.unlearned import runs as unlearned
from jaxunlearn.protocols.unlearned import variants

# Protocols whose shadow models come from other run folders.
ELSEWHERE = ("shift", "arch_shift", "incremental")


def from_config(
    chosen: settings.Settings,
    workdir: str,
    overwrite: tuple[str, ...],
    dry_run: bool,
    overrides: Mapping[str, Any],
) -> str:
    """Audits a run folder; trains and records first what is missing. Returns what the terminal shows.

    Raises:
      UserError: anything the user can mend; settings and other run folders are checked before any training.
    """
    bench, asked = check(workbench.prepare(chosen))
    chosen = bench.settings
    if dry_run:
        return plan.targets_text(plan.make_targets(chosen))
    with opening.opened(bench, chosen, workdir, overwrite, overrides) as (run, reporter, bench, plain, _):
        trained = targets.run(run, reporter, bench)
        if asked:
            bench = without_diverged(bench, unlearned.make(run, reporter, bench, asked), reporter)
        begun = time.monotonic()
        pieces, answer, bank = investigate(run, reporter, bench)
        evaluated = evaluation.of_run(run)  # sections of an earlier launch.evaluate
        facts = {
            "config": f"{chosen.data.name}, {chosen.model.name}, seed {chosen.seed}",
            "shadow models": f"{chosen.shadows.count}, {chosen.audit.group_size} per group",
            "protocol": chosen.audit.protocol,
        }
        made = presenting.provenance(bank.options, time.monotonic() - begun, store.versions(), **facts)
        findings = [*shadows.findings(trained.shadow), *(one for piece in pieces for one in piece.findings)]
        every = [*pieces, *evaluated]
        files = publishing.publish(run, f"Audit of {chosen.data.name}", answer, every, made, findings, plain)
        return f"{answer}\n\n{presenting.text(pieces)}\n\n{files}"


def without_diverged(
    bench: workbench.Workbench, made: unlearned.Summary, reporter: progress.Reporter
) -> workbench.Workbench:
    """The workbench without the roles of which a model diverged: it has no finite answers to be judged by.

    Raises:
      ConfigError: no role is left.
    """
    audit = bench.settings.audit
    lost = {name: one.diverged for name, one in made.roles.items() if one.diverged and name in audit.unlearned}
    for name, diverged in lost.items():
        sets = ", ".join(map(str, diverged))
        reporter.say(f"{name} is left out of the audit: the model of forget set(s) {sets} diverged; lower its rate")
    left = tuple(name for name in audit.unlearned if name not in lost)
    if not left:
        raise errors.ConfigError(
            f"every audited role has diverged models: {', '.join(lost)}. Lower the rates by unlearn.options, e.g. "
            "--config.unlearn.options=lr=1e-3, and delete the role by --overwrite=unlearned:METHOD."
        )
    chosen = dataclasses.replace(bench.settings, audit=dataclasses.replace(audit, unlearned=left))
    return bench._replace(settings=chosen)


def with_roles_named(bench: workbench.Workbench) -> workbench.Workbench:
    """The workbench with `unlearned:all` in audit.unlearned spelled out, by the methods that the network can run.

    Raises:
      ConfigError: unknown methods or hyperparameters.
    """
    if f"{variants.PREFIX}all" in bench.settings.audit.unlearned:
        bench, _ = unlearned.check(bench)
    named = variants.roles_of(bench.settings, bench.settings.audit.unlearned)
    audit = dataclasses.replace(bench.settings.audit, unlearned=named)
    return bench._replace(settings=dataclasses.replace(bench.settings, audit=audit))


def check(bench: workbench.Workbench) -> tuple[workbench.Workbench, tuple[variants.Variant, ...]]:
    """Refuses impossible audits before a run folder is touched.

    Returns:
      The workbench with all audited roles named, and the unlearning methods among them.
    """
    is_traced = f"{variants.PREFIX}all" in bench.settings.audit.unlearned
    bench = with_roles_named(bench)
    audit = bench.settings.audit
    banks.options_of(bench.settings)
    scores.names_of(audit.scores)
    if audit.decision not in ("auto", "none"):
        scores.names_of((audit.decision,))
    target_roles.check(bench)
    splits.require_units(bench)
    banks.groups(bench.settings, bench.settings.shadows.count)
    forget = bench.settings.split.forget
    random_sets = forget.count if forget.kind == "set_random" else 0
    if audit.calibration == "retrained" and random_sets < verdicts.FEWEST_SETS:
        raise errors.ConfigError(
            f"audit.calibration = 'retrained' needs at least {verdicts.FEWEST_SETS} random forget sets, but "
            f"split.forget has kind {forget.kind!r} and count {forget.count}. Raise the count, or choose another."
        )
    approximate = [name for name in audit.unlearned if name.startswith(variants.PREFIX)]
    unknown = [name for name in audit.unlearned if name not in (*target_roles.NAMES, *approximate)]
    if unknown:
        raise errors.unknown("role in audit.unlearned", unknown[0], (*target_roles.NAMES, f"{variants.PREFIX}METHOD"))
    asked = tuple(variants.of_role(bench.settings, name) for name in approximate)
    if asked and not is_traced:
        unlearned.trace(bench, asked)
    if audit.protocol in ELSEWHERE and not audit.shadow_runs:
        raise errors.ConfigError(
            f"audit.protocol = {audit.protocol!r} judges with the shadow models of other runs: name their run folders, "
            "e.g. --config.audit.shadow_runs=runs/cinic10."
        )
    if audit.protocol == "incremental" and not bench.settings.targets.start:
        raise errors.ConfigError(
            "audit.protocol = 'incremental' audits models that were trained on from another run: name its run folder, "
            "e.g. --config.targets.start=runs/cifar10."
        )
    if audit.protocol == "class_report":
        class_report.check(bench.settings)
    if audit.protocol == "scoreui" and not bench.settings.targets.snapshots:
        raise errors.ConfigError("audit.protocol = 'scoreui' needs targets.snapshots of at least 1.")
    if audit.protocol in ELSEWHERE:
        foreign.check(bench)
    return bench, asked


def investigate(
    run: store.Run, reporter: progress.Reporter, bench: workbench.Workbench
) -> tuple[list[presenting.Piece], str, banks.Bank]:
    """Runs the protocol that the settings name: pieces of the report, the answer in words, the evidence."""
    chosen, protocol = bench.settings, bench.settings.audit.protocol
    bank = banks.open_bank(run, reporter, bench)
    role = chosen.audit.unlearned[0]
    pieces: list[presenting.Piece] = []
    answer = ""
    if protocol in ("all", "binui"):
        answer, judged = decide(run, reporter, bench, bank)
        pieces += judged
        for name in chosen.audit.unlearned:
            board = binui.run(bank, chosen, name, reporter)
            save_scores(run, bank, board.scored, name)
            pieces += presenting.scoreboard(board, name, f"binui_{name}")
    if protocol in ("all", "scoreui") and chosen.targets.snapshots:
        pieces += presenting.levels(scoreui.run(run, bench, bank, reporter))
    if protocol in ("all", "shadow_sweep"):
        pieces += presenting.counts(sweeps.shadow_counts(bank, chosen, role, reporter))
    if protocol == "sensitivity":
        pieces += presenting.sensitivity(sweeps.sensitivity(bank, chosen, role, reporter))
    if protocol == "class_report":
        pieces += presenting.by_class(class_report.run(bank, chosen, bench.dataset.class_names, reporter))
    if protocol in ELSEWHERE:
        pieces += elsewhere(run, reporter, bench, bank, role)
    if not answer:
        answer = answers.headline(pieces)
    return pieces, answer, bank


def decide(
    run: store.Run, reporter: progress.Reporter, bench: workbench.Workbench, bank: banks.Bank
) -> tuple[str, list[presenting.Piece]]:
    """Verdicts on every audited role, exact retraining and the original (nothing unlearned) beside it."""
    chosen, audit = bench.settings, bench.settings.audit
    wanted = audit.calibration
    automatic = verdicts.AUTO_RETRAINED if wanted == "retrained" else verdicts.AUTO
    name, why = verdicts.choose_score(audit.decision, banks.available(bank), automatic)
    if not name:
        return answers.answer(None, None, audit.level, why), []
    shared = banks.shared(bank)
    found: dict[str, verdicts.Verdicts] = {}
    truth, null = None, None
    for role in dict.fromkeys((*audit.unlearned, "retrained", "original")):
        cases = banks.cases(bank, role)
        values = scores.compute_cases(name, shared, cases, bank.options)
        if null is None or null.calibration == "population":  # only that one depends on who is audited
            if wanted == "retrained":
                null = null_of_retrained(bank, shared, name, audit.level)
            else:
                null = verdicts.null_of(name, shared, cases, bank.options, wanted, audit.level)
            wanted = null.calibration  # all roles are judged by the kind of null that fits the first
        reporter.say(f"verdicts on {role} by {name}, calibrated on {null.calibration}")
        found[role] = verdicts.decide(name, values, null, bank.forgotten, audit.level)
        store.files.write_npz(
            run.path("scores", f"verdicts_{role}.npz"), **bank.named, score=values, p_out=found[role].p_out,
            p_in=found[role].p_in, verdict=found[role].codes,
        )  # fmt: skip
        if role == "retrained" and wanted != "retrained":  # against its own kind it is uniform by construction
            truth = verdicts.calibration(found[role], bank.forgotten, audit.level, chosen.seed)
    main = found[audit.unlearned[0]]
    retrained = found.get("retrained") if audit.unlearned[0] != "retrained" else None
    first = answers.answer(
        main, retrained, audit.level, "", audited=audit.unlearned[0], original=found["original"]
    )  # fmt: skip
    pieces = answers.decisions(found, truth)
    names = naming.shown(bench.dataset, bank.rows)
    pieces.insert(1, answers.worst(main, names, bank.labels, bench.dataset.class_names))
    return first, pieces


def null_of_retrained(bank: banks.Bank, shared: scores.Measured, name: str, level: float) -> verdicts.Null:
    """The retrained null of a score, with the measured drift of the shadows' null of an offline score beside it."""
    cases = banks.cases(bank, "retrained")
    values = scores.compute_cases(name, shared, cases, bank.options)
    offline, _ = verdicts.choose_score("auto", banks.available(bank))
    off = None
    if offline and len(bank.shadow.target.log_odds) > 1:
        off = verdicts.null_of(offline, shared, cases, bank.options, "shadows", level).drift
    return verdicts.retrained_null(values, bank.forgotten, off)


def elsewhere(
    run: store.Run, reporter: progress.Reporter, bench: workbench.Workbench, bank: banks.Bank, role: str
) -> list[presenting.Piece]:
    """BinUI with shadow models of other runs, this run's own beside them (incremental: the others only)."""
    chosen = bench.settings
    parts = {} if chosen.audit.protocol == "incremental" else {"own": bank.shadow}
    for folder in chosen.audit.shadow_runs:
        parts[foreign.name_of(folder)] = foreign.open_shadows(run, reporter, bench, folder, bank.options)
    boards = sweeps.shadow_sources(bank, parts, chosen, role, reporter)
    pieces = presenting.sources(boards)
    for source, board in boards.items():
        save_scores(run, bank, board.scored, f"{role}_{source}")
        if source != "own":
            pieces += presenting.scoreboard(board, f"{role}, shadows of {source}", f"binui_{role}_{source}")
            if chosen.audit.protocol == "shift" and chosen.targets.snapshots:
                shifted = bank._replace(shadow=parts[source], pairs={})
                pieces += presenting.levels(scoreui.run(run, bench, shifted, reporter))
    return pieces


def save_scores(run: store.Run, bank: banks.Bank, scored: judging.Scored, name: str) -> None:
    """Writes scores/binui_NAME.npz: a [G, R, N] array per score, `bank.named`, labels [N], forgotten [R, N]."""
    store.files.write_npz(
        run.path("scores", f"binui_{name}.npz"),
        **bank.named, labels=bank.labels, forgotten=bank.forgotten, **scored.values,
    )  # fmt: skip
