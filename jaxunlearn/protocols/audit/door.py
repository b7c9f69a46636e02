"""The door for arrays: from a file to the report, without loading any model code."""

import time

from jaxunlearn import progress, store
from jaxunlearn.protocols.audit import answers, evidence, presenting, publishing


def audit_file(request: evidence.Request, out: str, overwrite: tuple[str, ...], dry_run: bool) -> str:
    """Audits a file of arrays. Returns what the terminal shows.

    Raises:
      UserError: bad file, arrays or choices, before anything is written.
    """
    begun = time.monotonic()
    opened = evidence.open_file(request)
    if dry_run:
        return evidence.plan_text(opened)
    with store.open_run(out, overwrite) as run, store.status(run, {"evidence": request._asdict()}, {}):
        reporter = progress.Reporter(run.log)
        facts = {"evidence": evidence.fingerprint(opened)}
        store.claim(run, "audit", run.path("evidence.json"), facts, 1)
        found = evidence.run(request, opened, reporter)
        values = {name: one.values for name, one in found.result.scores.items()}
        ids = {} if found.ids is None else {"ids": found.ids}
        store.files.write_npz(run.path("scores.npz"), **values, **ids)
        if found.decided is not None:
            decided = found.decided
            p_in = {} if decided.p_in is None else {"p_in": decided.p_in[0]}
            store.files.write_npz(
                run.path("verdicts.npz"), **ids, p_out=decided.p_out[0], verdict=decided.codes[0], **p_in
            )  # fmt: skip
        pieces, answer = answers.of_arrays(found)
        made = presenting.provenance(
            found.options, time.monotonic() - begun, store.versions(),
            evidence=request.path, samples=found.sizes["N"], **{"shadow models": found.sizes.get("S", 0)},
        )  # fmt: skip
        findings = [one for piece in pieces for one in piece.findings]
        files = publishing.publish(run, "Audit of given logits", answer, pieces, made, findings, request._asdict())
        warnings = "".join(f"\nnote: {said}" for said in found.warnings)
        return f"{answer}\n\n{presenting.text(pieces)}{warnings}\n\n{files}"
