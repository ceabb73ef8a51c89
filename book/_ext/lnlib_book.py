"""Cards, boards and badges: what the book shows of the executed notebooks.

Everything here is read from the notebooks' outputs in the cache, after all documents
were read; no verdict and no number is typed.  A study without a result is shown as
"not run".

Environment variables:
    LNLIB_BOOK_TIER: `book` (default) or `quick`.  `quick` shows the results of tier
        quick, marks every page, and refuses a notebook that has none.
    LNLIB_BOOK_REPOSITORY: address of the public repository; adds its buttons and
        launch buttons for Binder (with JupyterLab) and Colab.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args
from weakref import WeakKeyDictionary

import yaml
from docutils import nodes
from jupyter_cache import get_cache
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from readable import (
    breakable_ids,
    keep_stops,
    readable_captions,
    readable_html,
    readable_tables,
)
from source_map import load_studies, place_id
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from lnlib import claims, runner, stability
from lnlib.choices import choose
from lnlib.registry import (
    Claim,
    Paper,
    StudyRecord,
    Text,
    Verdict,
    load_registry,
    paper_name,
)
from lnlib.results import Project, bundles, read_notebook, verdicts_of
from lnlib.stats import Estimate

REFUTED = "refuted by"  # heads a column of the table of a study's claims
WATERMARK = "Quick tier: reduced seeds and sizes, for testing only."
NOT_RUN = "not run"
ORDER = (*get_args(Verdict), claims.NOT_JUDGED, NOT_RUN)
DECISIONS = Path(__file__).resolve().parents[1] / "decisions.yml"
CHANGES = Path(__file__).resolve().parents[1] / "verdict_changes.yml"
REACH = Path(__file__).resolve().parents[1] / "reach"
REFERENCES = "book/references"
DISPUTE = "book/changes"
STABILITY = Path(__file__).resolve().parents[1] / "stability.json"
VERDICTS, SEEDS = "book/verdicts", "over-seeds"
TEXTS = {"chapter": "book/sources/chapter", "glossary": "book/sources/glossary"}

logger = logging.getLogger(__name__)


# ------------------------------------------------------------------ results


@dataclass(frozen=True)
class StudyResult:
    """What the executed notebook of one study says; empty when it was not run.

    `seeds` is what its claims came out as at other seeds, for each tier at which that
    was measured; `outdated` says that one was measured with other inputs than now.
    """

    record: StudyRecord
    docname: str
    bundles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    day: str = ""  # on which it ran, as in 2026-11-27, in UTC
    seeds: tuple[stability.Stability, ...] = ()
    outdated: bool = False

    def verdict(self, claim: Claim) -> str:
        """Return the verdict of the claim, or "not run"."""
        return str(self.bundles.get(claim.id, {}).get("verdict", NOT_RUN))

    def over_seeds(self, claim: Claim) -> list[stability.Stability]:
        """Return the measurements over seeds that tell anything of the claim."""
        return [one for one in self.seeds if one.counts(claim)]

    @property
    def unmeasured(self) -> list[Claim]:
        """The claims that are judged at no tier that was measured over seeds."""
        return [
            claim
            for claim in self.record.claims
            if all(
                stability.wanted(claim, one.tier) == claims.NOT_JUDGED
                for one in self.seeds
            )
        ]

    def evidence(self, claim: Claim) -> list[claims.Evidence]:
        """Return the evidence of the claim as it was recorded."""
        found = self.bundles.get(claim.id, {}).get("evidence", [])
        keys = ("estimate", "low", "high", "n", "exact")
        return [
            claims.Evidence(
                claim.prediction(e["name"]), Estimate(*(e[key] for key in keys))
            )
            for e in found
        ]

    def finding(self, claim: Claim) -> str:
        """Return the finding with its numbers, or "" if it does not apply."""
        if self.verdict(claim) != claim.expected:
            return ""
        return claims.finding_text(claim, self.evidence(claim))


Studies = dict[str, tuple[StudyRecord, str]]
# Read once per build.
_STUDIES: WeakKeyDictionary[Sphinx, Studies] = WeakKeyDictionary()
_RESULTS: WeakKeyDictionary[Sphinx, dict[str, StudyResult]] = WeakKeyDictionary()


def read_study(env: BuildEnvironment, record: StudyRecord, docname: str) -> StudyResult:
    """Return the study's result in the cache.

    Raises:
        lnlib.results.DamagedResult: the study did not close, or a stored verdict does
            not follow from its numbers.
    """
    notebook = read_notebook(Path(env.doc2path(docname)))
    cache = get_cache(env.config.nb_execution_cache_path)
    try:
        key, notebook = cache.merge_match_into_notebook(notebook)
    except KeyError:
        return StudyResult(record, docname)
    ran = cache.get_cache_record(key)
    ended = (ran.data or {}).get("ended") or ran.created.isoformat()
    judged = {b["claim"]: b for b in verdicts_of(notebook, project_of(env))}
    (run,) = bundles(notebook, claims.RUN_MIME)
    return StudyResult(record, docname, judged, run, ended[:10])


def project_of(env: BuildEnvironment) -> Project:
    """Return the project whose book is being built."""
    return Project(Path(env.srcdir))


def studies(env: BuildEnvironment) -> Studies:
    """Return every registered study with its document, in the order of the contents."""
    if env.app in _STUDIES:
        return _STUDIES[env.app]
    order = {name: place for place, name in enumerate(env.external_site_map)}  # type: ignore[attr-defined]
    found = {}
    for name, record in load_registry(project_of(env).registry).items():
        docname = f"notebooks/{name}"
        if docname in env.found_docs:
            found[name] = (record, docname)
        else:
            logger.warning("study %s must have a chapter %s in _toc.yml", name, docname)
    ordered = sorted(found, key=lambda name: order.get(found[name][1], len(order)))
    return _STUDIES.setdefault(env.app, {name: found[name] for name in ordered})


def results(app: Sphinx) -> dict[str, StudyResult]:
    """Return the results of all studies, read once per build."""
    if app not in _RESULTS:
        measured = stability.load(STABILITY)
        _RESULTS[app] = {
            name: with_seeds(
                read_study(app.env, record, docname),
                measured.get(name, ()),
                project_of(app.env),
            )
            for name, (record, docname) in studies(app.env).items()
        }
    return _RESULTS[app]


def with_seeds(
    result: StudyResult, measured: Sequence[stability.Stability], project: Project
) -> StudyResult:
    """Return a result with its stability over seeds, where that is of these inputs."""
    study = result.record.study
    now = tuple(
        one
        for one in measured
        if one.inputs == stability.digest(study, one.tier, project)
    )
    return replace(result, seeds=now, outdated=len(now) < len(measured))


# ------------------------------------------------------------------ decisions


class Reason(BaseModel):
    """A prediction, and the outcome of it that an advice hangs on."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    claim: str
    prediction: str
    outcome: Literal["met", "missed"]


class Decision(BaseModel):
    """What to do, and what to avoid, in one kind of network."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    build: Text
    do: Text
    avoid: Text
    because: tuple[Reason, ...]


def load_decisions(path: Path = DECISIONS) -> list[Decision]:
    """Return the decision guide.

    Raises:
        ExtensionError: the file does not say what it must.
    """
    try:
        return TypeAdapter(list[Decision]).validate_python(
            yaml.safe_load(path.read_text("utf-8"))
        )
    except ValidationError as error:
        raise ExtensionError(
            f"{path.name} does not say what it must: {error}"
        ) from None


@dataclass(frozen=True)
class Support:
    """What a run says of one reason of an advice."""

    reason: Reason
    result: StudyResult
    claim: Claim
    evidence: claims.Evidence | None

    @property
    def judged(self) -> bool:
        """Whether the claim was judged in this run."""
        return self.result.verdict(self.claim) in get_args(Verdict)

    @property
    def stands(self) -> bool:
        """Whether the run was judged and has the outcome that the advice needs."""
        found = self.evidence
        return (
            self.judged and found is not None and found.outcome == self.reason.outcome
        )


def supports(decision: Decision, found: Mapping[str, StudyResult]) -> list[Support]:
    """Return what a run says of each reason of a decision.

    Raises:
        ExtensionError: a reason names no claim of a study, or no stated prediction of
            its claim.
    """
    owners = {c.id: (r, c) for r in found.values() for c in r.record.claims}
    told = []
    for reason in decision.because:
        if reason.claim not in owners:
            raise ExtensionError(
                f"{DECISIONS.name}: no study has the claim {reason.claim}, a reason of "
                f"{decision.build!r}"
            )
        result, claim = owners[reason.claim]
        stated = [p.name for p in claim.predictions if p.kind == "stated"]
        if reason.prediction not in stated:
            raise ExtensionError(
                f"{DECISIONS.name}: {reason.claim} has no stated prediction "
                f"{reason.prediction}; it has {', '.join(stated)}"
            )
        seen = {e.prediction.name: e for e in result.evidence(claim)}
        told.append(Support(reason, result, claim, seen.get(reason.prediction)))
    return told


# ------------------------------------------------------------------ reach


def yes_or_no(value: Any) -> Any:
    """Return the word that YAML reads as a truth value."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class Beyond(BaseModel):
    """What a paper found at a larger scale than ours, or on other data.

    `agrees` compares it with the verdict that the registry expects.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    cite: str
    at: Text
    says: Text
    agrees: Annotated[Literal["yes", "no", "in part"], BeforeValidator(yes_or_no)]

    @field_validator("cite")
    @classmethod
    def _known(cls, cite: str) -> str:
        paper_name(cite)
        return cite


class Reach(BaseModel):
    """The largest scale at which a claim was tested here, and evidence beyond it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    scale: Text
    beyond: tuple[Beyond, ...]


def reach_file(study: str, folder: Path = REACH) -> Path:
    """Return the file that says how far the claims of a study were tested."""
    return folder / f"{study}.yml"


def load_reach(record: StudyRecord, folder: Path = REACH) -> dict[str, Reach]:
    """Return, by claim of a study, how far it was tested.

    Raises:
        ExtensionError: the file is missing, or does not say what it must.
    """
    path = reach_file(record.study, folder)
    if not path.is_file():
        raise ExtensionError(
            f"{path} is missing: it must say of each claim of {record.study} at which "
            "scale it was tested. book/add_a_study.md shows an entry."
        )
    try:
        found = TypeAdapter(dict[str, Reach]).validate_python(
            yaml.safe_load(path.read_text("utf-8"))
        )
    except (ValidationError, yaml.YAMLError) as error:
        raise ExtensionError(f"{path} does not say what it must: {error}") from None
    ids = [claim.id for claim in record.claims]
    if list(found) != ids:
        missing = ", ".join(i for i in ids if i not in found) or "none"
        unknown = ", ".join(i for i in found if i not in ids) or "none"
        raise ExtensionError(
            f"{path} must have an entry for each claim of {record.study}, in the order "
            f"of the registry; missing: {missing}; unknown: {unknown}"
        )
    return found


# ------------------------------------------------------------------ HTML


def anchor(claim_id: str) -> str:
    """Return the id of the claim's verdict box in its chapter."""
    return "claim-" + claim_id.replace(".", "-")


class Page:
    """Writes HTML for one page: knows the way from it to the others."""

    def __init__(self, app: Sphinx, docname: str) -> None:
        """Write for `docname`."""
        self.app, self.docname = app, docname

    def link(self, docname: str, fragment: str = "") -> str:
        """Return the address of a document, seen from this page."""
        uri = ""
        if docname != self.docname:
            uri = self.app.builder.get_relative_uri(self.docname, docname)
        return escape(f"{uri}#{fragment}" if fragment else uri or "#", quote=True)

    def judged(self, result: StudyResult, claim: Claim) -> str:
        """Return the address of the claim's verdict box."""
        ran = claim.id in result.bundles
        return self.link(result.docname, anchor(claim.id) if ran else "")

    def paper(self, key: str) -> str:
        """Return the address of a paper in the list of references."""
        for citation in self.app.env.get_domain("cite").citations:  # type: ignore[attr-defined]
            if citation.key == key:
                return self.link(REFERENCES, citation.citation_id)
        raise ExtensionError(f"{REFERENCES} must list {key}, and does not")

    def place(self, result: StudyResult, claim: Claim) -> str:
        """Return the claim's id, a link to its evidence, and its sentence."""
        source = claim.source
        if isinstance(source, Paper):
            sentence = escape(str(source))
            where = self.paper(source.cite)
        else:
            sentence = f"sentence {source.sentence}"
            if len(headings(result)) > 1:
                sentence = f"“{escape(source.heading)}”, {sentence}"
            spot = place_id(source.text, source.heading, source.sentence)
            where = self.link(TEXTS[source.text], spot)
        return (
            f'<span class="lnlib-place"><a href="{self.judged(result, claim)}">'
            f"<code>{claim.id}</code></a> "
            f'<a href="{where}">{sentence}</a></span>'
        )


def headings(result: StudyResult) -> list[str]:
    """Return the places that the study's claims come from."""
    places = [
        paper_name(c.source.cite)
        if isinstance(c.source, Paper)
        else f"{c.source.text}, “{c.source.heading}”"
        for c in result.record.claims
    ]
    return list(dict.fromkeys(places))


def badges(result: StudyResult, claim: Claim) -> str:
    """Return the verdict's badge, and the expected one where they differ."""
    verdict = result.verdict(claim)
    shown = claims.badge(verdict)
    if verdict in (claim.expected, claims.NOT_JUDGED, NOT_RUN):
        return shown
    return (
        f'{shown} <span class="lnlib-aside">expected: {claims.badge(claim.expected)}'
        "</span>"
    )


def over_seeds(result: StudyResult, claim: Claim) -> str:
    """Return at how many seeds the expected verdict came; "" if not measured.

    Of several tiers it is the one with the most seeds that gave another.
    """
    found = result.over_seeds(claim)
    if not found:
        return ""
    told = []
    for one in found:
        count = f"{one.given(claim)} of {len(one.seeds)} seeds"
        told.append(f"{stability.wanted(claim, one.tier)} at {count}, tier {one.tier}")
        told += [one.others(claim)] * bool(one.others(claim))
    worst = min(found, key=lambda one: one.given(claim) / len(one.seeds))
    return (
        f'<span class="lnlib-seeds" data-stable="{str(worst.stable(claim)).lower()}" '
        f'title="{escape("; ".join(told), quote=True)}">'
        f"{worst.given(claim)} of {len(worst.seeds)} seeds</span>"
    )


def told(result: StudyResult, claim: Claim) -> str:
    """Return the finding, or why there is none."""
    finding = result.finding(claim)
    if finding:
        return f'<span class="lnlib-finding">{escape(finding)}</span>'
    reasons = {
        claim.expected: "The finding needs measurements that this run skipped.",
        NOT_RUN: "This study was not run.",
        claims.NOT_JUDGED: f"Measured; judged at tier {claim.tier}.",
    }
    reason = reasons.get(
        result.verdict(claim),
        "The registry expects another verdict; its finding does not apply to this run.",
    )
    return f'<span class="lnlib-aside">{reason}</span>'


def counts(found: Iterable[StudyResult]) -> str:
    """Return how many claims got each verdict, as a line of badges."""
    number = Counter(r.verdict(c) for r in found for c in r.record.claims)
    parts = [
        f'<li data-count="{number[v]}"><strong>{number[v]}</strong> '
        f"{claims.badge(v)}</li>"
        for v in ORDER
        if number[v]
    ]
    return f'<ul class="lnlib-counts">{"".join(parts)}</ul>'


def seconds(result: StudyResult) -> str:
    """Return the run time by tier: measured for the tier shown, else the budget."""
    parts = []
    for tier in claims.TIERS:
        if result.run.get("tier") == tier:
            parts.append(f"{tier} {result.run['cpu_seconds']:.0f} s (measured)")
        else:
            parts.append(f"{tier} budget {runner.BUDGETS[tier]} s")
    return ", ".join(parts)


def claim_html(page: Page, result: StudyResult, claim: Claim, more: str = "") -> str:
    """Return a claim as a list item: verdict, restatement, finding, place, `more`."""
    return (
        f'<li data-claim="{claim.id}" data-verdict="{result.verdict(claim)}">'
        f'<div class="lnlib-mark">{badges(result, claim)}</div><div>'
        f'<p class="lnlib-says">{escape(claim.says)}</p>'
        f"<p>{told(result, claim)} {over_seeds(result, claim)} "
        f"{page.place(result, claim)}</p>{more}</div></li>"
    )


def reach_html(page: Page, claim: Claim, reach: Reach) -> str:
    """Return what would falsify a claim, how far it was tested, what is known beyond.

    Each is a paragraph; what is known beyond is one for each paper.
    """
    dispute = f'<a href="{page.link(DISPUTE)}">Dispute a verdict</a>'
    told = [
        ("falsifier", "What would falsify it", f"{escape(claim.falsifier)} {dispute}."),
        ("scale", "Tested up to", f"{escape(reach.scale)}."),
    ]
    how = {"yes": "Agrees", "no": "Disagrees", "in part": "Agrees in part"}
    for paper in reach.beyond:
        name = (
            f'<a href="{page.paper(paper.cite)}">{escape(paper_name(paper.cite))}</a>'
        )
        found = (
            f"{name}, {escape(paper.at)}: {escape(paper.says)} "
            f'<em data-agrees="{paper.agrees}">{how[paper.agrees]} with '
            f"“{claim.expected}”.</em>"
        )
        told.append(("beyond", "Beyond", found))
    if not reach.beyond:
        told.append(("beyond", "Beyond", "No evidence at a larger scale was found."))
    return "".join(
        f'<p class="lnlib-aside lnlib-{kind}"><strong>{name}:</strong> {text}</p>'
        for kind, name, text in told
    )


def reading_minutes(page: Page, result: StudyResult) -> int:
    """Return how long the text of a chapter takes to read, at 200 words a minute."""
    cells = read_notebook(Path(page.app.env.doc2path(result.docname))).cells
    text = " ".join(c.source for c in cells if c.cell_type == "markdown")
    return max(1, round(len(re.findall(r"[A-Za-z]{2,}", text)) / 200))


def card_html(page: Page, result: StudyResult) -> str:
    """Return the card that opens a chapter: one line per claim, opening to more."""
    reach = load_reach(result.record)
    rows = "".join(
        f'<li data-claim="{claim.id}" data-verdict="{result.verdict(claim)}">'
        f'<div class="lnlib-mark">{badges(result, claim)}</div>'
        f"<details><summary>{escape(claim.says)} "
        f'<code class="lnlib-id">{claim.id}</code></summary>'
        f"<p>{told(result, claim)} {page.place(result, claim)}</p>"
        f"{reach_html(page, claim, reach[claim.id])}</details></li>"
        for claim in result.record.claims
    )
    facts = {
        "Source": "; ".join(headings(result)),
        "Time": seconds(result),
        "Reading": f"{reading_minutes(page, result)} minutes, without the code",
        "Data": ", ".join(result.record.data) or "none",
        "You need": ", ".join(result.record.prerequisites) or "nothing",
    }
    listed = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return (
        '<div class="lnlib-card" role="region" aria-label="Claims in short">'
        f'{counts([result])}<ul class="lnlib-claims">{rows}</ul>'
        f'<dl class="lnlib-facts">{listed}</dl></div>'
    )


def effects(result: StudyResult, claim: Claim) -> list[claims.Evidence]:
    """Return the evidence that shows the size of what was found.

    That is the first stated prediction; where the verdict depends on a condition, the
    first that was met and the first that was missed.
    """
    stated = [e for e in result.evidence(claim) if e.prediction.kind == "stated"]
    if result.verdict(claim) != "conditional":
        return stated[:1]
    first = {e.outcome: e for e in reversed(stated)}
    return [first[outcome] for outcome in ("met", "missed")]


def brief(value: float) -> str:
    """Return a number with two digits, or more if it is large: 0.12, 190.

    What float32 can hardly tell from zero reads ≈ 0.
    """
    if 0 < abs(value) < 1e-6:
        return "≈ 0"
    return f"{value:.0f}" if 100 <= abs(value) < 1e5 else f"{value:.2g}"


def quantity(claim: Claim, effect: claims.Evidence) -> str:
    """Return what was measured, and what "the same" is the same as."""
    whole, told = "", effect.prediction.quantity
    for prediction in claim.predictions:
        if not re.match(r"(the same|as the )", prediction.quantity):
            whole = prediction.quantity
        if prediction.name == effect.prediction.name:
            break
    return told if told == whole else f"{told} ({whole})"


def effect_html(claim: Claim, effect: claims.Evidence) -> str:
    """Return a measured value with its interval; what it is, for who asks."""
    m = effect.measured
    low, value, high = map(brief, (m.low, m.estimate, m.high))
    interval = "" if low == high else f" <small>[{low}, {high}]</small>"
    told = escape(f"{quantity(claim, effect)}: {effect.outcome}", quote=True)
    return (
        f'<span class="lnlib-effect" title="{told}" data-outcome="{effect.outcome}">'
        f'<span class="lnlib-unseen">{told}, </span>'
        f'<span class="lnlib-tick" aria-hidden="true"></span>{value}{interval}</span>'
    )


def compact_html(page: Page, found: Sequence[StudyResult]) -> str:
    """Return the board of the start page: counts, and one line per claim."""
    fields = {name: about["field"] for name, about in load_studies().items()}
    groups = []
    for result in found:
        rows = "".join(
            f'<tr data-claim="{claim.id}" data-verdict="{result.verdict(claim)}">'
            f"<td>{badges(result, claim)}</td>"
            f'<td><a href="{page.judged(result, claim)}">{escape(claim.says)}</a> '
            f"{over_seeds(result, claim)}</td>"
            f"<td>{' '.join(effect_html(claim, e) for e in effects(result, claim))}"
            "</td></tr>"
            for claim in result.record.claims
        )
        groups.append(
            f'<tbody data-field="{escape(fields[result.record.study], quote=True)}">'
            '<tr><th colspan="3" scope="rowgroup">'
            f'<a href="{page.link(result.docname)}">{escape(result.record.title)}</a>'
            f"</th></tr>{rows}</tbody>"
        )
    heads = "".join(
        f'<th scope="col">{name}</th>' for name in ("Verdict", "Claim", "Measured")
    )
    return (
        f'<div class="lnlib-board">{counts(found)}'
        f'<p class="lnlib-aside">{seeds_told(found)} '
        f'<a href="{page.link(VERDICTS, SEEDS)}">More.</a></p>'
        '<table class="lnlib-compact">'
        f"<thead><tr>{heads}</tr></thead>{''.join(groups)}</table></div>"
    )


def seeds_told(found: Sequence[StudyResult]) -> str:
    """Return in a sentence or two how stable the verdicts are over seeds."""
    pairs = [(r, c) for r in found for c in r.record.claims]
    parts = []
    for tier in claims.TIERS:
        measured = [
            (one, claim)
            for result, claim in pairs
            for one in result.over_seeds(claim)
            if one.tier == tier
        ]
        if measured:
            stable = sum(one.stable(claim) for one, claim in measured)
            seeds = " or ".join(sorted({f"{len(one.seeds)}" for one, _ in measured}))
            parts.append(
                f"at tier {tier}, {stable} of {len(measured)} claims came out as "
                f"expected at every one of {seeds} seeds"
            )
    if not parts:
        return "Over seeds: not measured."
    lacking = sum(len(result.unmeasured) for result in found)
    parts += [f"not measured: {lacking} of {len(pairs)} claims"] * bool(lacking)
    return f"Over seeds: {'; '.join(parts)}."


def stability_html(page: Page, found: Sequence[StudyResult]) -> str:
    """Return the claims that some seed did not bear out, and what was not measured."""
    rows = "".join(
        f'<li data-claim="{claim.id}" data-verdict="{result.verdict(claim)}">'
        f"<p>{badges(result, claim)} {over_seeds(result, claim)} "
        f'<a href="{page.judged(result, claim)}"><code>{claim.id}</code></a></p>'
        f"<p>Tier {one.tier}: {escape(one.others(claim))}</p></li>"
        for result in found
        for claim in result.record.claims
        for one in result.over_seeds(claim)
        if not one.stable(claim)
    )
    lines = [seeds_told(found)]
    for why, studies_of in (
        (
            "Not every claim is measured",
            [r for r in found if r.unmeasured and not r.outdated],
        ),
        ("Not measured since they changed", [r for r in found if r.outdated]),
    ):
        titles = "; ".join(r.record.title for r in studies_of)
        lines += [f"{why}: {escape(titles)}."] * bool(titles)
    told = "".join(f"<p>{line}</p>" for line in lines)
    listed = f'<ul class="lnlib-advice">{rows}</ul>' if rows else ""
    return f'<div class="lnlib-board">{told}{listed}</div>'


def board_html(page: Page, result: StudyResult) -> str:
    """Return one study's part of the full board: evidence, falsifiers and reach."""
    rows, reach = [], load_reach(result.record)
    for claim in result.record.claims:
        evidence = [e for e in result.evidence(claim) if e.prediction.kind == "stated"]
        table = ""
        if evidence:
            table = (
                f"<details><summary>Deciding evidence ({len(evidence)})</summary>"
                f"{claims.evidence_html(evidence)}</details>"
            )
        far = (
            "<details><summary>Falsifier, scale, and evidence beyond</summary>"
            f"{reach_html(page, claim, reach[claim.id])}</details>"
        )
        rows.append(claim_html(page, result, claim, table + far))
    return (
        f'<div class="lnlib-board"><p>{escape(result.record.question)} '
        f'<a href="{page.link(result.docname)}">Read the chapter.</a> '
        f'<span class="lnlib-aside">Source: {escape("; ".join(headings(result)))}. '
        f"{seeds_told([result])}</span></p>{counts([result])}"
        f'<ul class="lnlib-claims">{"".join(rows)}</ul></div>'
    )


def advice_html(page: Page, result: StudyResult) -> str:
    """Return what a study's verdicts mean in practice, where the registry says so."""
    rows = []
    for claim in result.record.claims:
        if not claim.practice:
            continue
        verdict = result.verdict(claim)
        judged = verdict in get_args(Verdict)
        why = "does not support it" if judged else "does not reach its evidence"
        agrees = verdict == claim.expected
        text = claim.practice if agrees else f"No advice: this run {why}."
        rows.append(
            f'<li data-claim="{claim.id}" data-verdict="{verdict}">'
            f'<p class="lnlib-says">{escape(text)}</p><p>{badges(result, claim)} '
            f"{escape(claim.says)} {page.place(result, claim)}</p></li>"
        )
    if not rows:
        return '<p class="lnlib-aside">This study gives no advice.</p>'
    return (
        f'<div class="lnlib-board"><ul class="lnlib-advice">{"".join(rows)}</ul></div>'
    )


def reason_html(page: Page, support: Support) -> str:
    """Return one reason as a list item: what was measured, and what of it."""
    claim, found = support.claim, support.evidence
    told = "not measured"
    if found is not None:
        told = f"{escape(quantity(claim, found))}: {effect_html(claim, found)}"
    mark = {"met": "as claimed", "missed": "not as claimed"}[support.reason.outcome]
    if not support.judged:
        mark = f"judged at tier {claim.tier}"
    elif not support.stands:
        mark = "another outcome than this advice needs"
    return (
        f'<li data-claim="{claim.id}" data-verdict="{support.result.verdict(claim)}" '
        f'data-stands="{str(support.stands).lower()}">'
        f"{badges(support.result, claim)} {escape(claim.says)} "
        f'<span class="lnlib-aside">{told}, {mark}.</span> '
        f"{page.place(support.result, claim)}</li>"
    )


def decision_html(
    page: Page, found: Mapping[str, StudyResult], decision: Decision
) -> str:
    """Return one advice of the guide, or why this run gives none."""
    told = supports(decision, found)
    stands = all(support.stands for support in told)
    if stands:
        text = (
            f'<p><strong class="lnlib-do">Do.</strong> {escape(decision.do)}</p>'
            f'<p><strong class="lnlib-avoid">Avoid.</strong> {escape(decision.avoid)}'
            "</p>"
        )
    else:
        fallen = any(s.judged and not s.stands for s in told)
        why = "does not support it" if fallen else "does not reach its evidence"
        text = f"<p>No advice: this run {why}.</p>"
    reasons = "".join(reason_html(page, support) for support in told)
    return (
        f'<div class="lnlib-board lnlib-decision" data-stands="{str(stands).lower()}">'
        f"{text}<details><summary>Because of {len(told)} measurements</summary>"
        f"<ul>{reasons}</ul></details></div>"
    )


def provenance_html(page: Page, found: Sequence[StudyResult]) -> str:
    """Return from which runs the verdicts come: alike ones in a line, with commits."""
    commits: dict[str, set[str]] = {}
    for run in (result.run for result in found if result.run):
        alike = (
            f"tier {run['tier']}, seed {run['seed']}, control {run['control']}, "
            + "settings changed, " * run["exploring"]
            + ", ".join(f"{k} {v}" for k, v in run["versions"].items())
        )
        commits.setdefault(alike, set()).add(run["commit"])
    lines = "".join(
        f"<li>{escape(alike)}, commit {escape(', '.join(sorted(of)))}</li>"
        for alike, of in sorted(commits.items())
    )
    up = "../" * page.docname.count("/")
    return (
        f'<ul class="lnlib-aside">{lines or "<li>No study was run.</li>"}</ul>'
        f'<p><a href="{up}verdicts.json">The board as JSON</a></p>'
    )


def status_html(page: Page, found: Sequence[StudyResult]) -> str:
    """Return a table of the last run of each study: how long it took, and from what."""
    rows = []
    for result in found:
        run = result.run
        told = ["not run", "", "", "", ""]
        if run:
            tier, spent = str(run["tier"]), float(run["cpu_seconds"])
            budget, commit = str(runner.BUDGETS[tier]), str(run["commit"])
            told = [tier, f"{spent:.0f}", budget, result.day, commit]
        cells = "".join(f"<td>{escape(text)}</td>" for text in told)
        rows.append(
            f'<tr data-study="{result.record.study}"><td>'
            f'<a href="{page.link(result.docname)}">{escape(result.record.title)}</a>'
            f"</td>{cells}</tr>"
        )
    heads = ("Study", "Tier", "Seconds of one core", "Budget", "Day", "Commit")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        '<div class="lnlib-scroll" tabindex="0" role="region" '
        'aria-label="The last run of each study"><table class="lnlib-status">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f"{provenance_html(page, found)}"
    )


def changes_html(page: Page, found: Sequence[StudyResult]) -> str:
    """Return a list of the claims whose expected verdict has changed, with reasons."""
    claims_of = {c.id: (r, c) for r in found for c in r.record.claims}
    rows = []
    for claim_id, entries in yaml.safe_load(CHANGES.read_text("utf-8")).items():
        if len(entries) == 1:
            continue
        name = f"<code>{claim_id}</code>"
        if claim_id in claims_of:
            result, claim = claims_of[claim_id]
            name = f'<a href="{page.judged(result, claim)}">{name}</a>'
        first, *later = entries
        steps = f"{first['date']}: {first['verdict']}"
        for entry in later:
            steps += (
                f"<br>{entry['date']}: {entry['verdict']}, {escape(entry['because'])}"
            )
        rows.append(f"<li><p>{name}</p><p>{steps}</p></li>")
    return (
        f'<div class="lnlib-board"><ul class="lnlib-advice">{"".join(rows)}</ul></div>'
    )


# ------------------------------------------------------------------ placeholders


class Placeholder(nodes.General, nodes.Element):
    """Stands for HTML that is known once every notebook has been read.

    Attributes: `part`, `study` for the parts that show one, and `decision`.
    """


class _Part(SphinxDirective):
    """A directive that shows results."""

    def place(self, part: str, study: str = "") -> Placeholder:
        return Placeholder(part=part, study=study)

    def sections(self, part: str) -> list[nodes.Node]:
        """Return one section per study, with a placeholder in it."""
        found: list[nodes.Node] = []
        for name, (record, _) in studies(self.env).items():
            if part == "board":
                self.env.note_dependency(str(reach_file(name)))
            section = nodes.section(ids=[f"study-{name.replace('_', '-')}"])
            section += nodes.title(text=record.title)
            section += self.place(part, name)
            found.append(section)
        return found


class VerdictBoard(_Part):
    """`verdict-board`: every claim with its verdict; `:compact:` for one screen."""

    option_spec: ClassVar[dict[str, Any]] = {"compact": lambda _: True}

    def run(self) -> list[nodes.Node]:
        """Return the placeholders."""
        if "compact" in self.options:
            return [self.place("compact")]
        return self.sections("board")


class VerdictCounts(_Part):
    """`verdict-counts`: how many claims got each verdict."""

    def run(self) -> list[nodes.Node]:
        """Return the placeholder."""
        return [self.place("counts")]


class Advice(_Part):
    """`advice`: what to do, by study, as far as the verdicts reach."""

    def run(self) -> list[nodes.Node]:
        """Return the placeholders."""
        return self.sections("advice")


class Decisions(_Part):
    """`decisions`: what to do in each kind of network, bound to its evidence."""

    def run(self) -> list[nodes.Node]:
        """Return one section for each kind of network."""
        self.env.note_dependency(str(DECISIONS))
        found: list[nodes.Node] = []
        for decision in load_decisions():
            section = nodes.section(ids=[nodes.make_id(f"build {decision.build}")])
            section += nodes.title(text=decision.build)
            section += Placeholder(part="decision", study="", decision=decision)
            found.append(section)
        return found


class Provenance(_Part):
    """`provenance`: the runs that the verdicts come from."""

    def run(self) -> list[nodes.Node]:
        """Return the placeholder."""
        return [self.place("provenance")]


class Status(_Part):
    """`status`: the last run of each study, with times and versions."""

    def run(self) -> list[nodes.Node]:
        """Return the placeholder."""
        return [self.place("status")]


class VerdictStability(_Part):
    """`verdict-stability`: the claims that did not come out the same at every seed."""

    def run(self) -> list[nodes.Node]:
        """Return the placeholder."""
        if STABILITY.exists():
            self.env.note_dependency(str(STABILITY))
        return [self.place("stability")]


class VerdictChanges(_Part):
    """`verdict-changes`: the claims whose expected verdict has changed."""

    def run(self) -> list[nodes.Node]:
        """Return the placeholder."""
        self.env.note_dependency(str(CHANGES))
        return [self.place("changes")]


def html_of(app: Sphinx, page: Page, node: Placeholder) -> str:
    """Return the HTML that a placeholder stands for."""
    found = results(app)
    everything = list(found.values())
    if node["study"]:
        one = found[node["study"]]
        write = {"card": card_html, "board": board_html, "advice": advice_html}
        return write[node["part"]](page, one)
    if node["part"] == "decision":
        return decision_html(page, found, node["decision"])
    if node["part"] == "counts":
        return f'<div class="lnlib-board">{counts(everything)}</div>'
    parts = {
        "compact": compact_html,
        "provenance": provenance_html,
        "changes": changes_html,
        "stability": stability_html,
        "status": status_html,
    }
    return parts[node["part"]](page, everything)


# ------------------------------------------------------------------ events


def configure(app: Sphinx, config: Config) -> None:
    """Choose the cache by tier and digest, before any extension reads its name."""
    tier = choose(
        "LNLIB_BOOK_TIER", os.environ.get("LNLIB_BOOK_TIER", "book"), runner.BOOK_TIERS
    )
    config.lnlib_book_tier = tier
    cache = runner.book_cache(Project(Path(app.srcdir)), tier)
    config.nb_execution_cache_path = str(cache)
    for name in runner.THREADS:  # two threads on a busy core cost four times the time
        os.environ.setdefault(name, "1")
    options = config.html_theme_options
    options["navbar_persistent"] = []  # else there are two search boxes
    options["footer_content_items"] = ["copyright.html"]
    if tier == "quick":
        options["announcement"] = WATERMARK
    repository = os.environ.get("LNLIB_BOOK_REPOSITORY", "")
    if repository:
        options["repository_url"] = repository
        options["use_repository_button"] = options["use_issues_button"] = True
        options["launch_buttons"] = {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        }


def refuse_missing(app: Sphinx, env: BuildEnvironment, *_: Any) -> list[str]:
    """Stop a build at tier quick that would have to execute a notebook.

    Raises:
        ExtensionError: a study has no result at tier quick.
    """
    if app.config.lnlib_book_tier == "quick":
        missing = [
            name
            for name, (record, docname) in studies(env).items()
            if not read_study(env, record, docname).run
        ]
        if missing:
            raise ExtensionError(
                f"a book at tier quick must have the results of tier quick; missing: "
                f"{', '.join(missing)}. Run `python -m lnlib run --tier quick` first."
            )
    return []


def insert_card(app: Sphinx, doctree: nodes.document) -> None:
    """Put a study's card below its title and question; note where results show."""
    docname = app.env.docname
    found = {doc: name for name, (_, doc) in studies(app.env).items()}
    if docname in found:
        section = next(doctree.findall(nodes.section), None)
        texts = [] if section is None else list(section.findall(nodes.paragraph))
        if section is None or not texts or texts[0].parent is not section:
            logger.warning(
                "a study must open with a title and a question", location=docname
            )
            return
        place = section.index(texts[0]) + 1
        section.insert(place, Placeholder(part="card", study=found[docname]))
        for table in doctree.findall(nodes.table):
            if REFUTED in [entry.astext() for entry in table.findall(nodes.entry)]:
                table["classes"].append("lnlib-restated")
        app.env.note_dependency(str(reach_file(found[docname])))
    if docname in found or any(True for _ in shown(doctree)):
        showing(app.env).add(docname)


def join_hidden(app: Sphinx, doctree: nodes.document) -> None:
    """Let a hidden code cell without outputs open with the hidden one behind it."""
    cells = list(doctree.findall(nodes.container))
    hidden = [cell for cell in cells if cell.get("hide_mode") == "input"]
    for cell, behind in pairwise(hidden):
        follows = cell.next_node(descend=False, siblings=True) is behind
        if follows and len(cell) == 1:  # its source
            behind[0].insert(0, cell[0].children)
            cell.parent.remove(cell)


def shown(doctree: nodes.document) -> Iterator[nodes.Element]:
    """Yield every node that has to be filled from results."""
    yield from list(doctree.findall(Placeholder))
    for node in list(doctree.findall(nodes.inline)):
        if "claim-ref" in node["classes"]:
            yield node


def showing(env: BuildEnvironment) -> set[str]:
    """Return the names of the documents that show results."""
    if not hasattr(env, "lnlib_showing"):
        env.lnlib_showing = set()  # type: ignore[attr-defined]
    return env.lnlib_showing  # type: ignore[attr-defined, no-any-return]


def rewrite(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write every page that shows results again: any notebook may have changed.

    By now each has its result, or else the cache was taken away under way.
    """
    for name, result in results(app).items():
        if not result.run:
            logger.warning("study %s must have a result: build the book again", name)
    return sorted(showing(env) & env.found_docs)


def purge(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Forget a document that is read again or gone."""
    showing(env).discard(docname)


def merge(
    app: Sphinx, env: BuildEnvironment, docnames: Iterable[str], other: BuildEnvironment
) -> None:
    """Take over what a parallel reader noted."""
    showing(env).update(showing(other) & set(docnames))


def fill(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace placeholders and claim references, and give verdict boxes their ids."""
    page = Page(app, docname)
    by_claim = {
        claim.id: (result, claim)
        for result in results(app).values()
        for claim in result.record.claims
    }
    for node in shown(doctree):
        if isinstance(node, Placeholder):
            html = html_of(app, page, node)
        elif node["claim"] in by_claim:
            result, claim = by_claim[node["claim"]]
            html = (
                f'<span class="lnlib-ref" data-claim="{claim.id}" '
                f'data-verdict="{result.verdict(claim)}">'
                f'<a href="{page.judged(result, claim)}"><code>{claim.id}</code></a> '
                f"{badges(result, claim)}</span>"
            )
        else:
            logger.warning("no study has the claim %s", node["claim"], location=docname)
            continue
        node.replace_self(nodes.raw("", readable_html(html), format="html"))
    readable_tables(doctree)
    keep_stops(doctree)
    for node in doctree.findall(nodes.raw):
        text = breakable_ids(readable_captions(node.astext()))
        if 'class="lnlib-verdict" data-claim="' in text:
            for claim_id in by_claim:
                mark = f'class="lnlib-verdict" data-claim="{claim_id}"'
                text = text.replace(mark, f'id="{anchor(claim_id)}" {mark}', 1)
            text = readable_html(text)
        node.children = [nodes.Text(text)]


def check_decisions(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Warn of an advice whose evidence was judged and does not bear it."""
    found = results(app)
    for decision in load_decisions():
        for support in supports(decision, found):
            if support.judged and not support.stands:
                logger.warning(
                    "decision guide, %s: %s of %s must be %s; see %s",
                    decision.build, support.reason.prediction, support.reason.claim,
                    support.reason.outcome, DECISIONS.name,
                )  # fmt: skip
    return []


def write_json(app: Sphinx, error: Exception | None) -> None:
    """Write verdicts.json beside the pages: the board for machines."""
    if error is not None or app.builder.format != "html":
        return
    reach = {n: load_reach(r.record) for n, r in results(app).items()}
    board = {
        "tier": app.config.lnlib_book_tier,
        "studies": {
            name: {
                "title": result.record.title,
                "page": app.builder.get_target_uri(result.docname),
                "run": {k: v for k, v in result.run.items() if k != "expected"},
                "seeds": [one.model_dump(mode="json") for one in result.seeds],
                "claims": [
                    {
                        "claim": claim.id,
                        "says": claim.says,
                        "source": claim.source.model_dump(),
                        "verdict": result.verdict(claim),
                        "expected": claim.expected,
                        "finding": result.finding(claim),
                        "evidence": [e.as_dict() for e in result.evidence(claim)],
                        "falsifier": claim.falsifier,
                        "reach": reach[name][claim.id].model_dump(),
                    }
                    for claim in result.record.claims
                ],
            }
            for name, result in results(app).items()
        },
    }
    text = json.dumps(board, indent=1, ensure_ascii=False)
    Path(app.outdir, "verdicts.json").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension."""
    app.add_config_value("lnlib_book_tier", "book", "env")
    app.add_node(Placeholder)
    app.add_directive("verdict-board", VerdictBoard)
    app.add_directive("verdict-counts", VerdictCounts)
    app.add_directive("advice", Advice)
    app.add_directive("decisions", Decisions)
    app.add_directive("provenance", Provenance)
    app.add_directive("status", Status)
    app.add_directive("verdict-stability", VerdictStability)
    app.add_directive("verdict-changes", VerdictChanges)
    app.connect("config-inited", configure, priority=100)
    app.connect("env-before-read-docs", refuse_missing)
    app.connect("doctree-read", insert_card)
    app.connect("doctree-read", join_hidden)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    app.connect("env-updated", rewrite)
    app.connect("env-updated", check_decisions)
    app.connect("doctree-resolved", fill)
    app.connect("build-finished", write_json)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
