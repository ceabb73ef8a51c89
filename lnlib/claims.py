"""From evidence to verdict: the registry of claims, and the one rule that judges them.

The registry says before any experiment what a claim predicts.  A notebook records
measurements against those predictions; the verdict follows by :func:`verdict_of` and
by nothing else.
"""

from __future__ import annotations

import html
import json
import math
import os
import platform
import re
import string
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from IPython.display import display

from lnlib.choices import choose
from lnlib.stats import Estimate

VERDICT_MIME = "application/vnd.lnlib.verdict+json"
RUN_MIME = "application/vnd.lnlib.run+json"
TIERS = ("quick", "book", "full")
DEVICES = ("cpu", "cuda")
VERDICTS = ("holds", "fails", "conditional", "undecided")
NOT_JUDGED = "not judged"
KINDS = ("stated", "law", "map")
RELATIONS = ("<", ">", "within")
TEXTS = ("glossary", "chapter")
MIN_REPLICAS = {"quick": 4, "book": 8, "full": 8}
REPORTED_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "matplotlib")


class RegistryError(ValueError):
    """A registry file does not say what it must."""


class EvidenceError(ValueError):
    """A measurement cannot serve as evidence."""


class StudyError(RuntimeError):
    """A study ended with a missed law, an unjudged claim or an unexpected verdict."""


# ---------------------------------------------------------------- the registry


@dataclass(frozen=True)
class Prediction:
    """What a claim, or our own law, says a measurement will be.

    `bound` is a number for `<` and `>`, a pair for `within`, None for a map cell that
    is shown and not judged.
    """

    name: str
    kind: str
    quantity: str
    reason: str
    relation: str | None = None
    bound: float | tuple[float, float] | None = None
    levels: tuple[tuple[str, str], ...] = ()

    def outcome(self, low: float, high: float) -> str:
        """Say whether the interval `[low, high]` has `met` or `missed` the prediction.

        `met`: it lies inside the relation's set; `missed`: wholly outside; else `open`.
        """
        if self.relation is None or self.bound is None:
            return "shown"
        if self.relation == "within":
            assert isinstance(self.bound, tuple)
            floor, ceiling = self.bound
            if floor <= low and high <= ceiling:
                return "met"
            return "missed" if high < floor or ceiling < low else "open"
        assert not isinstance(self.bound, tuple)
        if self.relation == "<":
            met, missed = high < self.bound, low >= self.bound
        else:
            met, missed = low > self.bound, high <= self.bound
        return "met" if met else "missed" if missed else "open"


@dataclass(frozen=True)
class Control:
    """What a control does to a claim: the verdict it moves to, and whom it leaves."""

    name: str
    verdict: str
    leaves: str


@dataclass(frozen=True)
class Claim:
    """One claim of a source text, as fixed before any experiment."""

    id: str
    source: Mapping[str, Any]
    says: str
    falsifier: str
    settings: str
    expected: str
    finding: str
    practice: str
    predictions: tuple[Prediction, ...]
    controls: tuple[Control, ...]
    tier: str = "quick"

    def prediction(self, name: str) -> Prediction:
        """Return the prediction of that name; ValueError lists the valid ones."""
        choose(f"prediction of {self.id}", name, (p.name for p in self.predictions))
        return next(p for p in self.predictions if p.name == name)


@dataclass(frozen=True)
class StudyRecord:
    """The registry entry of one study: its claims, ordinary settings and controls."""

    name: str
    title: str
    question: str
    data: tuple[str, ...]
    prerequisites: tuple[str, ...]
    ordinary: Mapping[str, Any]
    controls: Mapping[str, str]
    claims: tuple[Claim, ...]

    def claim(self, claim_id: str) -> Claim:
        """Return the claim of that id, or raise ValueError with the valid ones."""
        choose(f"claim of {self.name}", claim_id, (c.id for c in self.claims))
        return next(c for c in self.claims if c.id == claim_id)

    def touched(self, control: str) -> set[str]:
        """Return the ids of the claims that `control` must move or must leave alone."""
        hits = [(c.id, k) for c in self.claims for k in c.controls if k.name == control]
        return {claim for claim, _ in hits} | {k.leaves for _, k in hits}


def registry_folder() -> Path:
    """Return the folder of the registry: LNLIB_REGISTRY if set, else the package's."""
    return Path(os.environ.get("LNLIB_REGISTRY") or Path(__file__).parent / "registry")


def load_registry(folder: Path | None = None) -> dict[str, StudyRecord]:
    """Return every study in `folder` by name, in alphabetical order.

    Raises:
        RegistryError: a file is malformed, or two studies share a claim id.
    """
    folder = folder or registry_folder()
    records = {
        path.stem: load_study(path.stem, folder)
        for path in sorted(folder.glob("*.yml"))
    }
    owner: dict[str, str] = {}
    for record in records.values():
        for claim in record.claims:
            if claim.id in owner:
                raise RegistryError(
                    f"a claim id must be unique; {claim.id} stands in "
                    f"{owner[claim.id]} and in {record.name}"
                )
            owner[claim.id] = record.name
    return records


def load_study(name: str, folder: Path | None = None) -> StudyRecord:
    """Read and check `folder/name.yml`.

    Raises:
        ValueError: there is no such study (the message lists those there are).
        RegistryError: the file breaks a rule; the message says where and which.
    """
    folder = folder or registry_folder()
    choose("study", name, sorted(p.stem for p in folder.glob("*.yml")))
    path = folder / f"{name}.yml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        record = _study(raw, name)
        _check_study(record)
    except RegistryError as error:
        raise RegistryError(f"{path.name}: {error}") from None
    return record


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise RegistryError(message)


def _take(raw: Any, where: str, needed: str, optional: str = "") -> dict[str, Any]:
    """Return the mapping `raw` if it has all needed keys and no unknown one."""
    _require(isinstance(raw, dict), f"{where} must be a mapping, is {raw!r}")
    must, may = set(needed.split()), set(optional.split())
    _require(
        must <= raw.keys(), f"{where} lacks {', '.join(sorted(must - raw.keys()))}"
    )
    unknown = raw.keys() - must - may
    _require(not unknown, f"{where} has unknown keys {', '.join(sorted(unknown))}")
    return dict(raw)


def _member(value: Any, valid: Sequence[str], where: str) -> str:
    _require(value in valid, f"{where} must be one of {', '.join(valid)}, is {value!r}")
    return str(value)


def _study(raw: Any, name: str) -> StudyRecord:
    top = _take(
        raw, "the study", "study title question data prerequisites controls claims",
        "ordinary",
    )  # fmt: skip
    _require(top["study"] == name, f"study must be {name}, is {top['study']!r}")
    return StudyRecord(
        name=name,
        title=top["title"],
        question=top["question"],
        data=tuple(top["data"]),
        prerequisites=tuple(top["prerequisites"]),
        ordinary=dict(top.get("ordinary") or {}),
        controls=dict(top["controls"]),
        claims=tuple(_claim(c) for c in top["claims"]),
    )


def _claim(raw: Any) -> Claim:
    needed = "id source says falsifier settings expected finding predictions controls"
    raw = _take(raw, f"claim {raw.get('id')}", needed, "tier factors practice")
    where = raw["id"]
    source = _take(raw["source"], f"{where} source", "text heading sentence quote")
    _member(source["text"], TEXTS, f"{where} source text")
    words = len(str(source["quote"]).split())
    _require(0 < words <= 8, f"{where} quote must have one to eight words, has {words}")
    factors = raw.get("factors") or {}
    controls = []
    for name, effect in raw["controls"].items():
        effect = _take(effect, f"{where} control {name}", "verdict leaves")
        verdict = _member(effect["verdict"], VERDICTS[:3], f"{where} control {name}")
        controls.append(Control(name, verdict, str(effect["leaves"])))
    return Claim(
        id=where,
        source=source,
        says=raw["says"],
        falsifier=raw["falsifier"],
        settings=raw["settings"],
        expected=_member(raw["expected"], VERDICTS, f"{where} expected"),
        finding=raw["finding"],
        practice=raw.get("practice", ""),
        predictions=tuple(_prediction(p, where, factors) for p in raw["predictions"]),
        controls=tuple(controls),
        tier=_member(raw.get("tier", "quick"), ("quick", "book"), f"{where} tier"),
    )


def _prediction(raw: Any, claim: str, factors: Mapping[str, Any]) -> Prediction:
    where = f"{claim} prediction {raw.get('name')}"
    raw = _take(raw, where, "name kind quantity reason", "levels relation bound")
    _require(
        re.fullmatch(r"[a-z][a-z0-9-]*", str(raw["name"])) is not None,
        f"{where}: a name has lower-case letters, digits and hyphens",
    )
    kind = _member(raw["kind"], KINDS, f"{where} kind")
    relation, bound = raw.get("relation"), raw.get("bound")
    if kind != "map" or relation is not None:
        _member(relation, RELATIONS, f"{where} relation")
        pair = isinstance(bound, list) and len(bound) == 2
        numbers = bound if pair else [bound]
        # PyYAML reads 1e-3 as text: a silent slip that would end as a TypeError.
        _require(
            pair == (relation == "within")
            and all(
                isinstance(b, int | float) and math.isfinite(b) and b is not True
                for b in numbers
            ),
            f"{where} bound must be {'a pair' if relation == 'within' else 'one number'},"
            f" finite (write 1.0e-3, not 1e-3), is {bound!r}",
        )
        if pair:
            _require(bound[0] < bound[1], f"{where} bound must rise, is {bound!r}")
            bound = (float(bound[0]), float(bound[1]))
    levels = {k: str(v) for k, v in (raw.get("levels") or {}).items()}
    for factor, level in levels.items():
        declared = [str(v) for v in factors.get(factor, [])]
        _require(
            level in declared,
            f"{where}: level {factor}={level} is not among the declared {declared}",
        )
    return Prediction(
        name=raw["name"],
        kind=kind,
        quantity=raw["quantity"],
        reason=raw["reason"],
        relation=relation,
        bound=bound,
        levels=tuple(sorted(levels.items())),
    )


def _check_study(record: StudyRecord) -> None:
    """Raise RegistryError unless the parts of a study fit each other."""
    ids = [c.id for c in record.claims]
    _require(len(set(ids)) == len(ids), "claim ids must be unique")
    used: set[str] = set()
    for claim in record.claims:
        names = [p.name for p in claim.predictions]
        _require(len(set(names)) == len(names), f"{claim.id}: prediction names repeat")
        _require(
            any(p.kind == "stated" for p in claim.predictions),
            f"{claim.id} must have at least one stated prediction",
        )
        fields = {f for _, f, _, _ in string.Formatter().parse(claim.finding) if f}
        for field in fields:
            _require(
                field.split(".")[0] in names,
                f"{claim.id} finding names {field}, which is not among {names}",
            )
        _require(bool(fields), f"{claim.id} finding must show at least one measurement")
        _require(bool(claim.controls), f"{claim.id} must have a control that moves it")
        for control in claim.controls:
            used.add(control.name)
            _require(
                control.name in record.controls,
                f"{claim.id} names control {control.name}, which is not declared",
            )
            _require(
                control.verdict != claim.expected,
                f"{claim.id}: control {control.name} must move the verdict away from "
                f"{claim.expected}",
            )
            _require(
                control.leaves in ids and control.leaves != claim.id,
                f"{claim.id}: control {control.name} must leave another claim of the "
                f"study alone, names {control.leaves!r}",
            )
            moved = record.claim(control.leaves)
            _require(
                all(k.name != control.name for k in moved.controls),
                f"{claim.id}: control {control.name} also moves {control.leaves}",
            )
    idle = set(record.controls) - used
    _require(not idle, f"controls that move no claim: {', '.join(sorted(idle))}")


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
            return format(value.estimate, spec)
        parts = (format(v, spec[1:]) for v in (value.estimate, value.low, value.high))
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
    told_apart = all(_differ(a.prediction, b.prediction) for a in met for b in missed)
    return "conditional" if told_apart else "undecided"


def _differ(a: Prediction, b: Prediction) -> bool:
    """Say whether two predictions have a common factor at different levels."""
    one, two = dict(a.levels), dict(b.levels)
    return any(one[f] != two[f] for f in one.keys() & two.keys())


def check_bundle(bundle: Mapping[str, Any], record: StudyRecord, tier: str) -> None:
    """Judge a stored verdict again, from its numbers and the registry.

    Raises:
        EvidenceError: the stored evidence, outcome or verdict is not what the registry
            and the rule make of the stored numbers.
    """
    claim = record.claim(bundle["claim"])
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


def _verdict_at(claim: Claim, evidence: Sequence[Evidence], tier: str) -> str:
    if TIERS.index(tier) < TIERS.index(claim.tier):
        return NOT_JUDGED
    return verdict_of(evidence)


def finding_text(claim: Claim, evidence: Iterable[Evidence]) -> str:
    """Return the claim's finding with its placeholders filled from the evidence."""
    return claim.finding.format_map({e.prediction.name: e for e in evidence})


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
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be a whole number >= 0; received {seed!r}")
        self.seed = seed
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
            EvidenceError: the measurement cannot serve, or the claim is judged already.
        """
        claim = self.record_of.claim(claim_id)
        if claim_id in self._verdicts:
            raise EvidenceError(f"{claim_id} was judged already: record before judging")
        evidence = make_evidence(claim.prediction(prediction), measured, self.tier)
        self._evidence.setdefault(claim_id, {})[prediction] = evidence
        return evidence

    def judge(self, claim_id: str) -> str:
        """Judge a claim from its recorded evidence, display the verdict and return it.

        Raises:
            EvidenceError: a stated prediction, or without a control a law, has no
                measurement.
        """
        claim = self.record_of.claim(claim_id)
        found = self._evidence.get(claim_id, {})
        owed = ("stated", "law") if self.control == "none" else ("stated",)
        missing = [
            p.name for p in claim.predictions if p.kind in owed and p.name not in found
        ]
        if missing:
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
                a claim was not judged or a verdict is not the expected one; under a
                control, if a claim that it must move or leave was not judged.
        """
        if self.record_of.ordinary and self._settings is None:
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
            "settings": self._settings or {},
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
