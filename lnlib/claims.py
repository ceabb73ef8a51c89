"""From evidence to verdict: the one rule, and the study that applies it.

The registry (:mod:`lnlib.registry`) says before any experiment what a claim predicts.
A notebook records measurements against those predictions; the verdict follows by
:func:`verdict_of` and by nothing else.
"""

from __future__ import annotations

import html
import json
import math
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from IPython.display import display

from lnlib.choices import choose
from lnlib.registry import Claim, Prediction, StudyRecord, load_study
from lnlib.stats import Estimate

VERDICT_MIME = "application/vnd.lnlib.verdict+json"
RUN_MIME = "application/vnd.lnlib.run+json"
TIERS = ("quick", "book", "full")
DEVICES = ("cpu", "cuda")
MAX_SEED = 9_999  # studies take multiples of it, which must fit 32 bits
NOT_JUDGED = "not judged"
MIN_REPLICAS = {"quick": 4, "book": 8, "full": 8}
REPORTED_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "matplotlib")


class EvidenceError(ValueError):
    """A measurement cannot serve as evidence."""


class StudyError(RuntimeError):
    """A study ended with a missed law, an unjudged claim or an unexpected verdict."""


def check_seed(seed: object) -> int:
    """Return a base seed that every study can take; ValueError says which can be."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise ValueError(
            f"seed must be a whole number from 0 to {MAX_SEED}; received {seed!r}"
        )
    return seed


# ---------------------------------------------------------------- the one rule


@dataclass(frozen=True)
class Evidence:
    """A prediction together with what was measured."""

    prediction: Prediction
    measured: Estimate

    @property
    def outcome(self) -> str:
        """`met`, `missed` or `open`; `shown` for a map cell without a bound."""
        return self.prediction.outcome(self.measured.low, self.measured.high)

    def __format__(self, spec: str) -> str:
        """Format the estimate; a spec that starts with `±` adds the interval."""
        value = self.measured
        if not spec.startswith("±"):
            return _told(value.estimate, spec)
        parts = (_told(v, spec[1:]) for v in (value.estimate, value.low, value.high))
        return "{} [{}, {}]".format(*parts)

    def __getattr__(self, name: str) -> Any:
        """Give `{prediction.low}`, `.high`, `.n` and `.estimate` to a finding."""
        if name in ("estimate", "low", "high", "n"):
            return getattr(self.measured, name)
        raise AttributeError(name)

    def as_dict(self) -> dict[str, Any]:
        """Return the evidence as it stands in the verdict's JSON."""
        bound = self.prediction.bound
        return {
            "name": self.prediction.name,
            "kind": self.prediction.kind,
            "estimate": self.measured.estimate,
            "low": self.measured.low,
            "high": self.measured.high,
            "n": self.measured.n,
            "exact": self.measured.exact,
            "relation": self.prediction.relation,
            "bound": list(bound) if isinstance(bound, tuple) else bound,
            "outcome": self.outcome,
        }


def make_evidence(prediction: Prediction, measured: Estimate, tier: str) -> Evidence:
    """Join a prediction and a measurement, if the measurement can carry it.

    Raises:
        EvidenceError: a number is not finite, the estimate lies outside its interval,
            or a sampled interval has zero width or too few replicas for the tier.
    """
    numbers = [float(v) for v in (measured.estimate, measured.low, measured.high)]
    estimate, low, high = numbers
    where = f"evidence for {prediction.name}"
    if not all(map(math.isfinite, numbers)):
        raise EvidenceError(f"{where} must be finite; received {numbers}")
    if not low <= estimate <= high:
        raise EvidenceError(
            f"{where}: the estimate must lie in its interval; received {estimate} "
            f"with [{low}, {high}]"
        )
    if not measured.exact:
        least = MIN_REPLICAS[tier]
        if measured.n < least:
            raise EvidenceError(
                f"{where} must come from at least {least} replicas at tier {tier}; "
                f"received n={measured.n}. Run more seeds."
            )
        if low == high:
            raise EvidenceError(
                f"{where}: a sampled interval must have a width; received "
                f"[{low}, {high}]. Mark deterministic numbers with stats.exact."
            )
    elif measured.n < 1:
        raise EvidenceError(f"{where}: n must be at least 1; received {measured.n}")
    return Evidence(
        prediction, Estimate(estimate, low, high, int(measured.n), measured.exact)
    )


def verdict_of(evidence: Sequence[Evidence]) -> str:
    """Return the verdict that follows from the stated evidence.

    All met: `holds`.  All missed: `fails`.  Some met, some missed, none open, and each
    met one differs from each missed one in a declared factor: `conditional`.
    Otherwise `undecided`.

    Raises:
        EvidenceError: there is no stated evidence.
    """
    stated = [e for e in evidence if e.prediction.kind == "stated"]
    if not stated:
        raise EvidenceError("a claim must have stated evidence; received none")
    met = [e for e in stated if e.outcome == "met"]
    missed = [e for e in stated if e.outcome == "missed"]
    if len(met) == len(stated):
        return "holds"
    if len(missed) == len(stated):
        return "fails"
    if len(met) + len(missed) < len(stated):
        return "undecided"
    told_apart = all(a.prediction.differs(b.prediction) for a in met for b in missed)
    return "conditional" if told_apart else "undecided"


def check_bundle(
    bundle: Mapping[str, Any], record: StudyRecord, tier: str, control: str = "none"
) -> None:
    """Judge a stored verdict again, from its numbers and the registry.

    Raises:
        EvidenceError: the stored evidence, outcome or verdict is not what the registry
            and the rule make of the stored numbers, or evidence is missing or doubled.
    """
    claim = record.claim(bundle["claim"])
    names = [item["name"] for item in bundle["evidence"]]
    missing = _unmeasured(claim, names, control)
    if missing or len(set(names)) < len(names):
        raise EvidenceError(
            f"{claim.id} must have evidence for each prediction, once; the result has "
            f"{', '.join(names) or 'none'}, and lacks {', '.join(missing) or 'none'}"
        )
    evidence = []
    for item in bundle["evidence"]:
        measured = Estimate(
            *(item[k] for k in ("estimate", "low", "high", "n", "exact"))
        )
        again = make_evidence(claim.prediction(item["name"]), measured, tier)
        if again.as_dict() != dict(item):
            raise EvidenceError(
                f"{claim.id}: stored evidence {item['name']} must be "
                f"{again.as_dict()}; the result says {dict(item)}"
            )
        evidence.append(again)
    verdict = _verdict_at(claim, evidence, tier)
    if bundle["verdict"] != verdict:
        raise EvidenceError(
            f"{claim.id}: the evidence makes the verdict {verdict}; the result says "
            f"{bundle['verdict']}"
        )


def _unmeasured(claim: Claim, measured: Iterable[str], control: str) -> list[str]:
    """Return the predictions that a verdict waits for: stated ones and laws.

    Under a control laws may be left out.
    """
    found = set(measured)
    owed = ("stated", "law") if control == "none" else ("stated",)
    return [p.name for p in claim.predictions if p.kind in owed and p.name not in found]


def _verdict_at(claim: Claim, evidence: Sequence[Evidence], tier: str) -> str:
    if TIERS.index(tier) < TIERS.index(claim.tier):
        return NOT_JUDGED
    return verdict_of(evidence)


def finding_text(claim: Claim, evidence: Iterable[Evidence]) -> str:
    """Return the claim's finding with its placeholders filled from the evidence.

    It is empty if one of them was not measured, as may be under a control.
    """
    found = {e.prediction.name: e for e in evidence}
    return claim.finding.format_map(found) if claim.shown() <= found.keys() else ""


# ---------------------------------------------------------------- a study


class Study:
    """The book-keeper of one notebook: parameters in, evidence and verdicts out."""

    def __init__(
        self,
        name: str,
        *,
        tier: str = "book",
        seed: int = 0,
        control: str = "none",
        device: str = "cpu",
    ) -> None:
        """Open the study `name` with papermill's four parameters.

        Raises:
            ValueError: a parameter has an unknown value; the valid ones are listed.
        """
        self.record_of = load_study(name)
        self.name = name
        self.tier = choose("tier", tier, TIERS)
        self.control = choose("control", control, ["none", *self.record_of.controls])
        self.device = choose("device", device, DEVICES)
        self.seed = check_seed(seed)
        self.exploring = False
        self._settings: dict[str, Any] | None = None
        self._evidence: dict[str, dict[str, Evidence]] = {}
        self._verdicts: dict[str, str] = {}
        self._start = time.perf_counter(), time.process_time()

    def choose(self, *, quick: Any, book: Any, full: Any) -> Any:
        """Return the value for this run's tier."""
        return {"quick": quick, "book": book, "full": full}[self.tier]

    def uses(self, **settings: Any) -> None:
        """Declare the scientific settings of this run.

        They are compared with the registry's `ordinary` ones.  A control must change
        exactly one of them; without a control a change marks the run as exploration:
        verdicts are shown beside the expected ones and nothing raises.

        Raises:
            ValueError: the names differ from the registry's, or the control does not
                change exactly one setting.
        """
        ordinary = self.record_of.ordinary
        if settings.keys() != ordinary.keys():
            raise ValueError(
                f"settings of {self.name} must be {sorted(ordinary)}; received "
                f"{sorted(settings)}"
            )
        changed = sorted(k for k in settings if settings[k] != ordinary[k])
        if self.control != "none" and len(changed) != 1:
            raise ValueError(
                f"control {self.control} must change exactly one setting; it changed "
                f"{changed or 'none'}. Read it in the configuration cell."
            )
        self.exploring = self.control == "none" and bool(changed)
        self._settings = dict(settings)

    def needs(self, *claim_ids: str) -> bool:
        """Say whether this run has to measure any of these claims.

        Always True without a control; under one, only for the claims that it must move
        or must leave alone.
        """
        for claim_id in claim_ids:
            self.record_of.claim(claim_id)
        touched = self.record_of.touched(self.control)
        return self.control == "none" or bool(touched & set(claim_ids))

    def record(self, claim_id: str, prediction: str, measured: Estimate) -> Evidence:
        """Record a measurement against a registered prediction.

        Raises:
            ValueError: no such claim or prediction.
            EvidenceError: the measurement cannot serve, the prediction has one already,
                or the claim is judged already.
        """
        claim = self.record_of.claim(claim_id)
        if claim_id in self._verdicts:
            raise EvidenceError(f"{claim_id} was judged already: record before judging")
        evidence = make_evidence(claim.prediction(prediction), measured, self.tier)
        found = self._evidence.setdefault(claim_id, {})
        if prediction in found:
            raise EvidenceError(
                f"{claim_id}/{prediction} must be recorded once; received {measured} "
                f"after {found[prediction].measured}. To measure again, run the "
                "notebook from its first cell."
            )
        found[prediction] = evidence
        return evidence

    def judge(self, claim_id: str) -> str:
        """Judge a claim from its recorded evidence, display the verdict and return it.

        Raises:
            EvidenceError: a stated prediction, or without a control a law, has no
                measurement.
        """
        claim = self.record_of.claim(claim_id)
        found = self._evidence.get(claim_id, {})
        if missing := _unmeasured(claim, found, self.control):
            raise EvidenceError(
                f"{claim_id} cannot be judged before these predictions are measured: "
                f"{', '.join(missing)}"
            )
        evidence = [found[p.name] for p in claim.predictions if p.name in found]
        verdict = _verdict_at(claim, evidence, self.tier)
        self._verdicts[claim_id] = verdict
        finding = finding_text(claim, evidence) if verdict == claim.expected else ""
        bundle = {
            "claim": claim_id,
            "verdict": verdict,
            "evidence": [e.as_dict() for e in evidence],
        }
        _show(
            VERDICT_MIME,
            bundle,
            verdict_html(claim, verdict, evidence, finding),
            f"{claim_id}: {verdict} (expected: {claim.expected})",
        )
        return verdict

    def close(self) -> None:
        """Close the study: show every verdict beside the expected one.

        Raises:
            StudyError: with no control and at ordinary settings, if a law was not met,
                a claim was not judged, a verdict is not the expected one or, from tier
                book on, a registered prediction was not measured; under a control, if a
                claim that it must move or leave was not judged.
        """
        if self._settings is None:
            raise StudyError(f"{self.name} must declare its settings with Study.uses")
        problems = self._problems()
        wall, cpu = (t() - s for t, s in zip(CLOCKS, self._start, strict=True))
        run = {
            "study": self.name,
            "tier": self.tier,
            "seed": self.seed,
            "control": self.control,
            "device": self.device,
            "exploring": self.exploring,
            "settings": self._settings,
            "verdicts": dict(self._verdicts),
            "expected": {c.id: c.expected for c in self.record_of.claims},
            "versions": versions(),
            "commit": commit(),
            "wall_seconds": round(wall, 1),
            "cpu_seconds": round(cpu, 1),
        }
        _show(RUN_MIME, run, run_html(run), f"{self.name}: closed")
        if problems and not self.exploring:
            raise StudyError(f"{self.name} does not stand:\n- " + "\n- ".join(problems))

    def _problems(self) -> list[str]:
        """Return what stops this run from counting as a good one."""
        claims = self.record_of.claims
        if self.control != "none":
            touched = self.record_of.touched(self.control)
            return [
                f"{c.id} was not judged under control {self.control}"
                for c in claims
                if c.id in touched and c.id not in self._verdicts
            ]
        problems = [
            f"law {claim_id}/{name} is {e.outcome}: {e.measured.estimate:.6g} "
            f"[{e.measured.low:.6g}, {e.measured.high:.6g}], must be "
            f"{e.prediction.relation} {e.prediction.bound}"
            for claim_id, found in self._evidence.items()
            for name, e in found.items()
            if e.prediction.kind == "law" and e.outcome != "met"
        ]
        for claim in claims:
            verdict = self._verdicts.get(claim.id)
            if verdict is None:
                problems.append(f"{claim.id} was not judged")
            elif verdict not in (claim.expected, NOT_JUDGED):
                problems.append(
                    f"{claim.id} is {verdict}, the registry expects {claim.expected}"
                )
            found = self._evidence.get(claim.id, {})
            if self.tier != "quick" and verdict is not None:
                problems += [
                    f"{claim.id}/{p.name} is registered and was not measured"
                    for p in claim.predictions
                    if p.name not in found
                ]
        return problems


CLOCKS = (time.perf_counter, time.process_time)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages a result may depend on."""
    found = {"python": platform.python_version()}
    return found | {name: metadata.version(name) for name in REPORTED_PACKAGES}


def commit() -> str:
    """Return the short commit of the working tree, with `+` if it has changes."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


# ---------------------------------------------------------------- display


def _show(mime: str, data: Mapping[str, Any], page: str, text: str) -> None:
    data = json.loads(json.dumps(data, allow_nan=False))
    bundle = {mime: data, "text/html": page, "text/plain": text}
    display(bundle, raw=True)  # type: ignore[no-untyped-call]


def badge(verdict: str) -> str:
    """Return the verdict as an HTML badge: a glyph and a word, not colour alone."""
    glyph = {"holds": "✓", "fails": "✗", "conditional": "◐", "undecided": "?"}
    sign = glyph.get(verdict, "–")
    return (
        f'<span class="lnlib-badge" data-verdict="{html.escape(verdict)}">'
        f'<span aria-hidden="true">{sign}</span> {html.escape(verdict)}</span>'
    )


def _told(value: float, spec: str) -> str:
    """Format a number for a finding; a zero has no exponent and no sign to show."""
    if value == 0 and spec.endswith("e"):
        return "0"
    text = format(value, spec)
    return text.lstrip("-") if set(text) <= set("-0.") else text


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.2e}"


def _bound(prediction: Prediction) -> str:
    if prediction.bound is None:
        return "shown, not judged"
    if isinstance(prediction.bound, tuple):
        return "within [{}, {}]".format(*map(_number, prediction.bound))
    return f"{prediction.relation} {_number(prediction.bound)}"


def evidence_html(evidence: Iterable[Evidence]) -> str:
    """Return the evidence as an HTML table, one row per prediction."""
    rows = []
    for e in evidence:
        m = e.measured
        interval = f"{_number(m.estimate)} [{_number(m.low)}, {_number(m.high)}]"
        n = "exact" if m.exact else f"n = {m.n}"
        cells = [e.prediction.kind, e.prediction.quantity, interval, n]
        cells += [_bound(e.prediction), e.outcome]
        tags = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        rows.append(f'<tr data-outcome="{e.outcome}">{tags}</tr>')
    names = ("kind", "quantity", "measured [interval]", "n", "predicted", "outcome")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        f'<div class="lnlib-scroll" tabindex="0" role="region" '
        f'aria-label="Evidence table"><table class="lnlib-evidence"><thead><tr>{head}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def verdict_html(
    claim: Claim, verdict: str, evidence: Iterable[Evidence], finding: str
) -> str:
    """Return a verdict as the box that the notebook and the book show."""
    if finding:
        told = f'<p class="lnlib-finding">{html.escape(finding)}</p>'
    elif verdict == NOT_JUDGED:
        told = f"<p>Measured here; judged at tier {claim.tier} and above.</p>"
    elif verdict == claim.expected:
        told = "<p>The finding needs measurements that this run skipped.</p>"
    else:
        told = (
            f"<p>The registry expects {badge(claim.expected)}; its finding does not "
            "apply to this run.</p>"
        )
    return (
        f'<div class="lnlib-verdict" data-claim="{claim.id}" data-verdict="{verdict}">'
        f"<p>{badge(verdict)} <code>{claim.id}</code></p>"
        f'<p class="lnlib-says">{html.escape(claim.says)}</p>{told}'
        f"<details><summary>Evidence</summary>{evidence_html(evidence)}</details></div>"
    )


def run_html(run: Mapping[str, Any]) -> str:
    """Return the closing table of a study: verdicts, and how it was run."""
    rows = "".join(
        f"<tr><td><code>{claim}</code></td><td>"
        f"{badge(run['verdicts'].get(claim, 'not run'))}</td>"
        f"<td>{badge(expected)}</td></tr>"
        for claim, expected in run["expected"].items()
    )
    kit = ", ".join(f"{k} {v}" for k, v in run["versions"].items())
    note = "<p>Settings were changed: an exploration.</p>" if run["exploring"] else ""
    return (
        f'<div class="lnlib-run">{note}<div class="lnlib-scroll" tabindex="0" '
        'role="region" aria-label="Verdicts of this study"><table><thead><tr>'
        '<th scope="col">claim</th><th scope="col">verdict</th>'
        f'<th scope="col">expected</th></tr></thead><tbody>{rows}</tbody></table></div>'
        f"<p>Tier {run['tier']}, seed {run['seed']}, control {run['control']}, "
        f"{run['device']}, {run['cpu_seconds']} s of processor time; "
        f"{html.escape(kit)}; commit {html.escape(run['commit'])}.</p></div>"
    )
