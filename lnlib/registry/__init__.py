"""The registry: what each study claims and predicts, fixed before any experiment.

One file `STUDY.yml` per study stands in this folder.  The models below are its schema;
what a file may not say, they refuse.
"""

from __future__ import annotations

import os
import string
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pybtex.database import parse_file
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from lnlib.choices import choose

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Level = Annotated[str, BeforeValidator(str)]
Verdict = Literal["holds", "fails", "conditional", "undecided"]
BIBLIOGRAPHY = Path(__file__).resolve().parents[2] / "book" / "references.bib"


class RegistryError(ValueError):
    """A registry file does not say what it must."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Model):
    """The place of a sentence: text, heading, number within it, at most eight words."""

    text: Literal["glossary", "chapter"]
    heading: Text
    sentence: Annotated[int, Field(ge=1)]
    quote: Text

    @field_validator("quote")
    @classmethod
    def _short(cls, quote: str) -> str:
        if len(quote.split()) > 8:
            raise ValueError(f"must have at most eight words, has {len(quote.split())}")
        return quote

    def __str__(self) -> str:
        """Return the place as a table of claims names it."""
        return f"{self.text}, “{self.heading}”, sentence {self.sentence}"


class Paper(_Model):
    """The place of a statement in a paper: its key in references.bib, and where."""

    cite: Annotated[str, StringConstraints(pattern=r"^[a-z]+\d{4}[a-z]+$")]
    place: Text

    def __str__(self) -> str:
        """Return authors, year and place; RegistryError as in :func:`paper_name`."""
        return f"{paper_name(self.cite)}, {self.place}"


def paper_name(key: str) -> str:
    """Return authors and year of an entry of the bibliography, as a text cites it.

    An lnlib that was installed from a wheel has no bibliography: the key stands alone.

    Raises:
        RegistryError: the bibliography has no such entry.
    """
    if not BIBLIOGRAPHY.is_file():
        return key
    entries = _bibliography()
    if key not in entries:
        raise RegistryError(
            f"a claim of a paper must cite an entry of {BIBLIOGRAPHY.name}; received "
            f"{key!r}. Add the entry, or correct the claim's source."
        )
    names = [
        " ".join([*p.prelast_names, *p.last_names])
        for p in entries[key].persons["author"]
    ]
    told = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
    return f"{told} ({entries[key].fields['year']})"


@cache
def _bibliography() -> Mapping[str, Any]:
    return parse_file(str(BIBLIOGRAPHY), "bibtex").entries  # type: ignore[no-any-return]


def _kind_of_source(source: Any) -> str | None:
    """Return the tag of the model that a source must fit, or None if it fits none."""
    if not isinstance(source, dict):
        return "paper" if isinstance(source, Paper) else "sentence"
    kinds = {"text": "sentence", "cite": "paper"}
    found = [kind for field, kind in kinds.items() if field in source]
    return found[0] if len(found) == 1 else None


# A sentence of a source text, or a statement in a paper: never both.
AnySource = Annotated[
    Annotated[Source, Tag("sentence")] | Annotated[Paper, Tag("paper")],
    Discriminator(
        _kind_of_source,
        custom_error_type="source",
        custom_error_message="must name either a sentence (text, heading, sentence, "
        "quote) or a paper (cite, place)",
    ),
]


class Prediction(_Model):
    """What a claim, or our own law, says a measurement will be.

    `bound` is a number for `<` and `>` and a rising pair for `within`; a map cell,
    which is shown and not judged, may go without.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
    kind: Literal["stated", "law", "map"]
    quantity: Text
    reason: Text
    relation: Literal["<", ">", "within"] | None = None
    bound: FiniteFloat | tuple[FiniteFloat, FiniteFloat] | None = None
    levels: dict[str, Level] = {}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.relation is None and self.kind == "map" and self.bound is None:
            return self
        if self.relation is None:
            raise ValueError("must have a relation: <, > or within")
        if self.relation != "within" and not isinstance(self.bound, float):
            raise ValueError(f"bound of {self.relation} must be one number")
        if self.relation == "within":
            if not isinstance(self.bound, tuple):
                raise ValueError("bound of within must be a pair of numbers")
            if not self.bound[0] < self.bound[1]:
                raise ValueError(f"bound of within must rise, is {self.bound}")
        return self

    def outcome(self, low: float, high: float) -> str:
        """Say whether the interval `[low, high]` has `met` or `missed` the prediction.

        `met`: it lies inside the relation's set; `missed`: wholly outside; else `open`.
        A map cell without a bound is `shown`.
        """
        if isinstance(self.bound, tuple):
            floor, ceiling = self.bound
            met = floor <= low and high <= ceiling
            missed = high < floor or ceiling < low
        elif self.bound is None:
            return "shown"
        elif self.relation == "<":
            met, missed = high < self.bound, low >= self.bound
        else:
            met, missed = low > self.bound, high <= self.bound
        return "met" if met else "missed" if missed else "open"

    def differs(self, other: Prediction) -> bool:
        """Say whether the two have a common factor at different levels."""
        common = self.levels.keys() & other.levels.keys()
        return any(self.levels[f] != other.levels[f] for f in common)


class Effect(_Model):
    """What a control does: the verdict it moves a claim to, and whom it leaves."""

    verdict: Literal["holds", "fails", "conditional"]
    leaves: str


class Claim(_Model):
    """One claim of a source text or a paper, as fixed before any experiment."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+\.[a-z0-9-]+$")]
    source: AnySource
    says: Text
    falsifier: Text
    settings: Text
    expected: Verdict
    finding: Text
    predictions: tuple[Prediction, ...]
    controls: Annotated[dict[str, Effect], Field(min_length=1)]
    factors: dict[str, tuple[Level, ...]] = {}
    tier: Literal["quick", "book"] = "quick"
    practice: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [p.name for p in self.predictions]
        if len(set(names)) < len(names):
            raise ValueError(f"prediction names must be unique, are {names}")
        if not any(p.kind == "stated" for p in self.predictions):
            raise ValueError("must have at least one stated prediction")
        for p in self.predictions:
            for factor, level in p.levels.items():
                if level not in self.factors.get(factor, ()):
                    raise ValueError(
                        f"prediction {p.name}: level {factor}={level} must be declared "
                        f"in factors, which are {self.factors}"
                    )
        unknown = sorted(self.shown() - set(names))
        if unknown or not self.shown():
            raise ValueError(
                "finding must show measurements by the names of predictions "
                f"({', '.join(names)}); it names {', '.join(unknown) or 'none'}"
            )
        for name, effect in self.controls.items():
            if effect.verdict == self.expected:
                raise ValueError(
                    f"control {name} must move the verdict away from {self.expected}"
                )
        return self

    def shown(self) -> set[str]:
        """Return the names of the predictions whose measurements the finding shows."""
        fields = (f for _, f, _, _ in string.Formatter().parse(self.finding) if f)
        return {field.split(".")[0] for field in fields}

    def prediction(self, name: str) -> Prediction:
        """Return the prediction of that name; ValueError lists the valid ones."""
        choose(f"prediction of {self.id}", name, (p.name for p in self.predictions))
        return next(p for p in self.predictions if p.name == name)


class StudyRecord(_Model):
    """One study: its claims, the settings a control may change, and the controls.

    `ordinary` holds the scientific settings at their ordinary values; `controls` says
    in a sentence what each control changes.
    """

    study: str
    title: Text
    question: Text
    data: tuple[Text, ...]
    prerequisites: tuple[Text, ...]
    controls: dict[str, Text]
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]
    ordinary: dict[str, Any]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        ids = [c.id for c in self.claims]
        if len(set(ids)) < len(ids):
            yield f"claim ids must be unique, are {', '.join(ids)}"
            return
        named = {name for claim in self.claims for name in claim.controls}
        for name in sorted(self.controls.keys() - named):
            yield f"control {name} must move a claim; no claim names it"
        for name in sorted(named - self.controls.keys()):
            yield f"control {name} must be declared in controls"
        for claim in self.claims:
            for name, effect in claim.controls.items():
                if effect.leaves not in ids or effect.leaves == claim.id:
                    yield (
                        f"{claim.id}: control {name} must leave another claim of the "
                        f"study alone; it names {effect.leaves!r}"
                    )
                elif name in self.claim(effect.leaves).controls:
                    yield f"{claim.id}: control {name} also moves {effect.leaves}"

    def claim(self, claim_id: str) -> Claim:
        """Return the claim of that id; ValueError lists the valid ones."""
        choose(f"claim of {self.study}", claim_id, (c.id for c in self.claims))
        return next(c for c in self.claims if c.id == claim_id)

    def touched(self, control: str) -> set[str]:
        """Return the ids of the claims that `control` must move or must leave alone."""
        effects = [
            (c.id, c.controls[control]) for c in self.claims if control in c.controls
        ]
        return {claim for claim, _ in effects} | {e.leaves for _, e in effects}


def registry_folder() -> Path:
    """Return the folder of the registry: LNLIB_REGISTRY if set, else this package's."""
    return Path(os.environ.get("LNLIB_REGISTRY") or Path(__file__).parent)


def study_names(folder: Path | None = None) -> list[str]:
    """Return the names of all studies in `folder`, in alphabetical order."""
    return sorted(path.stem for path in (folder or registry_folder()).glob("*.yml"))


def load_study(name: str, folder: Path | None = None) -> StudyRecord:
    """Read and check `folder/name.yml`.

    Raises:
        ValueError: there is no such study (the message lists those there are).
        RegistryError: the file breaks a rule; the message says where and which.
    """
    folder = folder or registry_folder()
    path = folder / f"{choose('study', name, study_names(folder))}.yml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        record = StudyRecord.model_validate(raw)
    except yaml.YAMLError as error:
        raise RegistryError(f"{path.name} must be YAML: {error}") from None
    except ValidationError as error:
        told = "\n".join(
            f"- {'/'.join(map(str, e['loc'])) or 'study'}: {e['msg']}"
            for e in error.errors()
        )
        raise RegistryError(f"{path.name} breaks a rule:\n{told}") from None
    if record.study != name:
        raise RegistryError(f"{path.name}: study must be {name}, is {record.study}")
    return record


def load_registry(folder: Path | None = None) -> dict[str, StudyRecord]:
    """Return every study in `folder` by name, in alphabetical order.

    Raises:
        RegistryError: a file is malformed, or two studies share a claim id.
    """
    records = {name: load_study(name, folder) for name in study_names(folder)}
    owner: dict[str, str] = {}
    for record in records.values():
        for claim in record.claims:
            if claim.id in owner:
                raise RegistryError(
                    f"a claim id must be unique; {claim.id} stands in "
                    f"{owner[claim.id]} and in {record.study}"
                )
            owner[claim.id] = record.study
    return records
