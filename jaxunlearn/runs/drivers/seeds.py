"""Runs a command once per seed, each in its own run folder, and summarises the findings over seeds.

    WORKDIR/seed_1, seed_2, ...    -> seeds.json: every finding with its value by seed
                                   -> report/seeds.html, .md, tables: mean, deviation and interval over seeds

Seeds are the independent units: each draws split, forget sets, weights and batches anew, from the same data set.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors, escapes, progress, records, store
from jaxunlearn.data.formats import files as data_files
from jaxunlearn.metrics import METRICS
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.report import cells, number_format
from jaxunlearn.report.section import Report, Section
from jaxunlearn.runs.drivers import delivery
from jaxunlearn.settings import Settings, to_dict

RECORD = "seeds.json"
LEVEL = 0.95
# Sections of more scores, methods or roles than MOST_ROWS show only the preferred one; tables of more rows than
# MOST_PRINTED are on the page, not in the terminal.
MOST_ROWS, MOST_PRINTED = 12, 30
FIRST_CHOICES = ("iam_on", "lm_iam", "iam_off", "lira_off", "confidence", "lm_ratio", "lm_loss")
KEY = ("section", "of", "metric", "against", "place")


class Command(NamedTuple):
    """A command that is run once per seed.

    Attributes:
      name: of the verb.
      findings: the file of a run folder that holds its findings.
      run: executes it for (seed, its run folder).
      first: the preferred score.
    """

    name: str
    findings: str
    run: Callable[[int, str], None]
    first: str = ""


def run(command: Command, seeds: Sequence[int], settings: Settings, workdir: str, is_fresh: bool = False) -> str:
    """Runs a command for every seed that is not finished yet, and returns the table over seeds.

    Args:
      command: the command.
      seeds: distinct; at least one.
      settings: resolved; their own seed is ignored.
      workdir: the folder that holds the run folders.
      is_fresh: whether finished seeds are run again.

    Raises:
      UserError: raised by the command, or a folder that is in use or was not written by this package.
    """
    start_time = time.monotonic()
    with store.open_run(workdir) as run_folder:
        reporter = progress.Reporter(run_folder.log)
        record = _read_record(run_folder)
        facts = _fingerprint(command, settings)
        earlier_record = record.get(command.name, {})
        is_same = bool(facts) and not is_fresh and earlier_record.get("fingerprint") == facts
        finished = dict(earlier_record.get("finished", {})) if is_same else {}
        for index, seed in enumerate(seeds, 1):
            name = f"seed_{seed}"
            if str(seed) in finished and run_folder.path(name, command.findings).exists():
                reporter.log(f"seed {seed} ({index} of {len(seeds)}): finished in an earlier call, in {name}/")
                continue
            reporter.log(f"seed {seed} ({index} of {len(seeds)}): {command.name} in {name}/")
            seed_start_time = time.monotonic()
            command.run(seed, str(run_folder.path(name)))
            seconds = time.monotonic() - seed_start_time
            findings = _findings(run_folder, command, name)
            finished[str(seed)] = {"folder": name, "seconds": round(seconds, 3), "findings": findings}
            record[command.name] = {"fingerprint": facts, "first": command.first, "finished": finished}
            store.files.write_json(run_folder.path(RECORD), record)
            reporter.log(f"seed {seed} took {progress.duration(seconds)}")
        record[command.name] = {
            "fingerprint": facts,
            "first": command.first,
            "seeds": list(seeds),
            "finished": finished,
            "findings": _over_seeds([str(seed) for seed in seeds], finished),
        }
        plain = to_dict(settings)
        plain.pop("seed")
        config = f"{settings.data.name}, {settings.model.name}, seeds {', '.join(map(str, seeds))}"
        return delivery.deliver(
            run_folder, _report(record, command.name, settings), plain, start_time, {"config": config}
        )


def _read_record(run_folder: store.Run) -> dict[str, Any]:
    """Reads the results of earlier calls from seeds.json, by command."""
    try:
        record = store.files.read_json(run_folder.path(RECORD))
    except FileNotFoundError:
        return {}
    if not all(isinstance(entry, dict) and isinstance(entry.get("finished"), dict) for entry in record.values()):
        raise store.files.damaged(run_folder.path(RECORD), "it contains no finished seeds")
    return record


def _fingerprint(command: Command, settings: Settings) -> str:
    """Returns a fingerprint of a finished seed's inputs; "" (never finished) if they cannot be known.

    Models and files of other runs, and the user's own code, may change while the settings stay the same.
    """
    plain = to_dict(settings)
    plain.pop("seed")
    other_runs = (settings.targets.start, *settings.audit.shadow_runs, settings.leaks.shadow_from)
    names = (settings.data.name, settings.data.tokenizer, settings.model.name, *settings.unlearn.methods,
             *settings.audit.scores)  # fmt: skip
    if any(other_runs) or any(":" in name for name in names):
        return ""
    stamps = []
    for path in filter(None, (settings.data.path, settings.split.forget.path)):
        expanded_path = data_files.expand(path)
        data_paths = sorted(expanded_path.rglob("*")) if expanded_path.is_dir() else [expanded_path]
        stamps += [list(map(str, data_files.stamp(file))) for file in data_paths if file.is_file()]
    return store.files.fingerprint({"command": command.name, "findings": command.findings, "settings": plain,
                                    "files": stamps, "versions": store.versions()})  # fmt: skip


def _findings(run_folder: store.Run, command: Command, name: str) -> list[dict[str, Any]]:
    """Reads the findings of one seed, each with its key.

    The key is section, of, metric, against, and the index among findings that agree in these.
    """
    path = run_folder.path(name, command.findings)
    try:
        findings = store.files.read_json(path, list if command.findings.endswith("findings.json") else dict)
    except FileNotFoundError as error:
        raise errors.StoreError(f"{path} is missing, although seed {name} has ended.") from error
    if isinstance(findings, dict):
        findings = _role_findings(findings)
    counts: dict[tuple[str, ...], int] = {}
    keyed_findings = []
    for finding in findings:
        key = tuple(str(finding.get(name, "")) for name in KEY[:-1])
        count = counts[key] = counts.get(key, -1) + 1
        value = escapes.number(finding["value"])
        keyed_findings.append({**dict(zip(KEY, (*key, count), strict=True)), "value": value})
    return keyed_findings


def _role_findings(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the means over forget sets of unlearned.json, as findings."""
    return [
        {"section": "unlearned", "of": role, "metric": metric, "value": _mean(values)}
        for role, facts in record["roles"].items()
        for metric, values in facts["numbers"].items()
    ]


def _mean(values: list[Any]) -> float:
    finite_values = [value for value in map(escapes.number, values) if np.isfinite(value)]
    return statistics.fmean(finite_values) if finite_values else float("nan")


def _over_seeds(seeds: list[str], finished: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns every finding over seeds, in order: mean, interval, deviation, value by seed."""
    by_key: dict[tuple[Any, ...], dict[str, float]] = {}
    for seed in seeds:
        for finding in finished[seed]["findings"]:
            by_key.setdefault(tuple(finding[name] for name in KEY), {})[seed] = escapes.number(finding["value"])
    findings = []
    for key, values in by_key.items():
        over_seeds = _finding(key, np.array(list(values.values())))
        summary = {name: getattr(over_seeds, name) for name in ("value", "low", "high", "std", "n")}
        findings.append({**dict(zip(KEY, key, strict=True)), **summary, "confidence_level": LEVEL, "by_seed": values})
    return findings


def _finding(key: tuple[Any, ...], values: np.ndarray) -> records.Finding:
    """Computes the mean over seeds with Student's t interval and the sample deviation (NaN for one seed)."""
    _, of, metric, against, _ = key
    mean = intervals.mean(values, metric=metric, of=of, against=against, confidence_level=LEVEL)
    finite_values = values[np.isfinite(values)]
    deviation = float(finite_values.std(ddof=1)) if len(finite_values) > 1 else float("nan")
    return mean.replace(std=deviation, method="Student's t over seeds")  # type: ignore[attr-defined]


def _report(record: dict[str, Any], name: str, settings: Settings) -> Report:
    """Returns the page: one table per command that was run with seeds in this folder, this one first."""
    names = [name, *(other for other in record if other != name and record[other].get("findings"))]
    sections = tuple(section for command in names for section in _sections(command, record[command], command == name))
    command_record = record[name]
    count = len(command_record["seeds"])
    answer = (
        f"launch.{name} over {count} seed{'s' * (count > 1)}: {len(command_record['findings']):,} numbers, each with "
        f"its {'mean, deviation and interval over seeds' if count > 1 else 'value; one seed gives no interval'}."
    )
    return Report(
        f"Over seeds: {settings.data.name}",
        answer,
        sections,
        {"command": f"launch.{name}"},
        stem="seeds",
        records={RECORD: record},
        listed={"seeds.csv": _findings_table(record[name])},
        notes=_notes(command_record),
        files=((RECORD, "every number by seed, and over seeds; seeds.csv: the same as a table"),
               ("seed_*/", "the run folder of each seed, with its own report")),
        width=120,
    )  # fmt: skip


def _sections(name: str, record: dict[str, Any], is_printed: bool) -> list[Section]:
    """Returns the main findings of a command, by section: a row per number, then seed by seed."""
    seeds = [str(seed) for seed in record["seeds"]]
    preferences = (record.get("first") or "", *FIRST_CHOICES)
    sections = []
    for section in dict.fromkeys(finding["section"] for finding in record["findings"]):
        section_findings = [finding for finding in record["findings"] if finding["section"] == section]
        names = list(dict.fromkeys(finding["of"] for finding in section_findings))
        if len(names) > MOST_ROWS:
            main_choice = next((name for name in preferences if name in names), names[0])
            section_findings = [finding for finding in section_findings if finding["of"] == main_choice]
        rows, findings = [], []
        for finding in section_findings:
            values = [escapes.number(finding["by_seed"].get(seed)) for seed in seeds]
            findings.append(_finding(tuple(finding[name] for name in KEY), np.array(values)))
            title = METRICS[finding["metric"]].title if finding["metric"] in METRICS else finding["metric"]
            metric = title + f" ({finding['place'] + 1})" * bool(finding["place"])
            rows.append((finding["of"], metric, findings[-1], " ".join(map(number_format.number, values))))
        heading = f"launch.{name}, {section.replace('_', ' ') or 'shadow models'}"
        heads = ("of", "metric", "over seeds", f"seeds {', '.join(seeds)}")
        sections.append(
            Section(
                "_".join(filter(None, ("seeds", name, section))),
                heading,
                interval_text(len(seeds)),
                cells.Table(heading, "seeds.csv contains all rows." * (len(names) > MOST_ROWS), heads,
                            tuple(rows)),
                findings=tuple(findings),
                printed=is_printed and len(rows) <= MOST_PRINTED,
            )
        )  # fmt: skip
    return sections


def _findings_table(record: dict[str, Any]) -> cells.Table:
    """Returns every finding as a table: mean, deviation, interval, value by seed."""
    seeds = [str(seed) for seed in record["seeds"]]
    rows = tuple(
        (
            *(str(finding[field]) for field in KEY[:-1]), finding["place"] + 1,
            *(escapes.number(finding[field]) for field in ("value", "std", "low", "high")), finding["n"],
            *(escapes.number(finding["by_seed"].get(seed)) for seed in seeds),
        )
        for finding in record["findings"]
    )  # fmt: skip
    heads = (*KEY[:-1], "which", "mean", "deviation", "low", "high", "seeds", *(f"seed {seed}" for seed in seeds))
    return cells.Table("", "", heads, rows)


def interval_text(count: int) -> str:
    """Returns the meaning of ± and [ ] in a table over seeds."""
    if count == 1:
        return "One seed: no deviation and no interval."
    return (
        f"Mean over {count} seeds ± their sample deviation, [ ] {number_format.rate(LEVEL)} interval of the mean "
        "(Student's t). Every seed draws split, forget sets, weights and batches anew, unless the settings fix them; "
        "the data set is the same, so the intervals cover other draws from these data only."
    )


def _notes(record: dict[str, Any]) -> tuple[str, ...]:
    """Returns notes on findings that are missing or not finite for some seeds."""
    seeds = [str(seed) for seed in record["seeds"]]
    incomplete = [finding for finding in record["findings"] if finding["n"] < len(seeds)]
    if not incomplete:
        return ()
    examples = ", ".join(f"{finding['of']} {finding['metric']}" for finding in incomplete[:3])
    examples += ", ..." * (len(incomplete) > 3)
    return (
        f"{len(incomplete)} number(s) are missing or not finite for some seeds; they are averaged over the remaining "
        f"seeds ({examples})",
    )
