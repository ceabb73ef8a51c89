"""How stable verdicts are over seeds: counted from runs, also from those that failed.

A run at another seed that closes with another verdict fails, and leaves no result.  Its
notebook is kept and sealed; here its verdicts, judged again from the evidence, count
against their claims.  A claim counts as given at a seed if its verdict is the expected
one and each of its laws is met.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from lnlib.choices import choose
from lnlib.claims import MAX_SEED, NOT_JUDGED, TIERS
from lnlib.registry import Claim, StudyRecord
from lnlib.results import Job, Project, inputs, sha256, standing


class StabilityError(ValueError):
    """A file does not say what a measurement of stability must."""


# ------------------------------------------------------------- seeds in words


def parse_seeds(text: object) -> tuple[int, ...]:
    """Return the seeds that a text such as `0:20` or `3,7,10:12` names, in its order.

    `a:b` is the half-open range from a to b - 1.

    Raises:
        ValueError: a part is neither a number nor a rising range, a seed is too large,
            or one is named twice.
    """
    seeds: list[int] = []
    for part in str(text).split(","):
        ends = part.strip().split(":")
        if len(ends) > 2 or not all(end.isascii() and end.isdecimal() for end in ends):
            raise _no_seeds(text, f"{part.strip()!r} is neither")
        first, *stop = map(int, ends)
        new = range(first, stop[0] if stop else first + 1)
        if not new:
            raise _no_seeds(text, f"{part.strip()!r} is empty")
        if new[-1] > MAX_SEED:
            raise _no_seeds(text, f"{new[-1]} is too large")
        seeds += new
    if twice := {seed for seed in seeds if seeds.count(seed) > 1}:
        raise _no_seeds(text, f"{min(twice)} is named twice")
    return tuple(seeds)


def _no_seeds(text: object, why: str) -> ValueError:
    return ValueError(
        f"seeds must be whole numbers from 0 to {MAX_SEED} or half-open ranges of "
        f"them, each seed once, such as 0:20 or 3,7,10:12; received {text!r}: {why}"
    )


def tell_seeds(seeds: Iterable[int]) -> str:
    """Return seeds as `parse_seeds` reads them, in rising order: `0:3,7`."""
    return ",".join(f"{a}:{b + 1}" if a < b else f"{a}" for a, b in _runs(seeds))


def _runs(seeds: Iterable[int]) -> list[list[int]]:
    """Return the first and the last of each run of seeds that follow each other."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return runs


Seeds = Annotated[
    tuple[int, ...],
    BeforeValidator(lambda v: parse_seeds(v) if isinstance(v, str) else v),
    PlainSerializer(tell_seeds),
]


# ------------------------------------------------------------- one study


class Stability(BaseModel):
    """What one study's claims came out as, over seeds.

    `claims` has for each claim the seeds by outcome: a verdict, or `law missed` and
    `law open` where the verdict is the expected one and a law of the claim is not met.
    A seed in none of them has no result.  `inputs` is a digest of all that the results
    depend on, the seed left out; `commits` are those at which the runs were made.
    A study has one at each tier at which it was measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    tier: str
    seeds: Seeds
    inputs: str
    commits: tuple[str, ...]
    claims: dict[str, dict[str, Seeds]]

    @model_validator(mode="after")
    def _each_seed_once(self) -> Self:
        choose("tier", self.tier, TIERS)
        for claim, outcomes in self.claims.items():
            found = [seed for seeds in outcomes.values() for seed in seeds]
            if len(set(found)) < len(found) or not set(found) <= set(self.seeds):
                raise ValueError(
                    f"{claim} must have at most one outcome at each of the seeds "
                    f"{tell_seeds(self.seeds)}; received {outcomes}"
                )
        return self

    def given(self, claim: Claim) -> int:
        """Return at how many of the seeds the claim came out as it must."""
        return len(self.claims.get(claim.id, {}).get(wanted(claim, self.tier), ()))

    def stable(self, claim: Claim) -> bool:
        """Say whether the claim came out as it must at every seed."""
        return self.given(claim) == len(self.seeds)

    def counts(self, claim: Claim) -> bool:
        """Say whether the seeds tell anything of the claim.

        They do not if it is judged at higher tiers only, and its laws were met.
        """
        return wanted(claim, self.tier) != NOT_JUDGED or not self.stable(claim)

    def others(self, claim: Claim) -> str:
        """Say which other outcomes came at which seeds, and which seeds have none."""
        outcomes = self.claims.get(claim.id, {})
        seen = {seed for seeds in outcomes.values() for seed in seeds}
        by = {k: v for k, v in outcomes.items() if k != wanted(claim, self.tier)}
        by |= {"no result": tuple(seed for seed in self.seeds if seed not in seen)}
        return "; ".join(f"{k} at {_listed(v)}" for k, v in by.items() if v)


def _listed(seeds: Iterable[int]) -> str:
    """Return seeds for people: 0 to 2, 7."""
    return ", ".join(f"{a} to {b}" if a < b else f"{a}" for a, b in _runs(seeds))


def wanted(claim: Claim, tier: str) -> str:
    """Return what a claim must come out as: it is expected, or not judged so low."""
    judged = TIERS.index(tier) >= TIERS.index(claim.tier)
    return claim.expected if judged else NOT_JUDGED


def digest(study: str, tier: str, project: Project) -> str:
    """Return a digest of all that a study's results depend on, but for the seed."""
    found = inputs(Job(study, tier), project)
    return sha256(json.dumps(found, sort_keys=True))[:16]


def _outcome(claim: Claim, bundle: Mapping[str, Any], tier: str) -> str:
    laws = [e["outcome"] for e in bundle["evidence"] if e["kind"] == "law"]
    verdict = str(bundle["verdict"])
    if verdict == wanted(claim, tier):
        for fault in ("missed", "open"):
            if fault in laws:
                return f"law {fault}"
    return verdict


def measure(
    record: StudyRecord, tier: str, seeds: tuple[int, ...], project: Project
) -> tuple[Stability, dict[str, list[int]]]:
    """Count the outcomes of a study's claims, and say which seeds have no result, why.

    Results that are stale or damaged do not count, nor do runs whose settings were not
    the ordinary ones, nor a study that stopped before it closed.
    """
    claims: dict[str, dict[str, list[int]]] = {c.id: {} for c in record.claims}
    commits, lacking = set(), dict[str, list[int]]()
    for seed in seeds:
        state, result = standing(Job(record.study, tier, seed), project)
        if result is None or result.run["exploring"]:
            why = "other settings than the ordinary ones" if result else state
            lacking.setdefault(why, []).append(seed)
            continue
        commits.add(result.run["commit"])
        for bundle in result.bundles:
            claim = record.claim(bundle["claim"])
            outcome = _outcome(claim, bundle, tier)
            claims[claim.id].setdefault(outcome, []).append(seed)
    found = {c: {o: tuple(s) for o, s in by.items()} for c, by in claims.items()}
    return (
        Stability(
            tier=tier,
            seeds=seeds,
            inputs=digest(record.study, tier, project),
            commits=tuple(sorted(commits)),
            claims=found,
        ),
        lacking,
    )


# ------------------------------------------------------------- the file


def _each_tier_once(found: tuple[Stability, ...]) -> tuple[Stability, ...]:
    tiers = [one.tier for one in found]
    if tiers != [tier for tier in TIERS if tier in tiers]:
        raise ValueError(f"tiers must rise, each once; received {', '.join(tiers)}")
    return found


Tiers = Annotated[tuple[Stability, ...], AfterValidator(_each_tier_once)]
_FILE = TypeAdapter(dict[str, Tiers])


def load(path: Path) -> dict[str, tuple[Stability, ...]]:
    """Return what a file says of each study, by rising tier; nothing if there is none.

    Raises:
        StabilityError: it is not what :func:`save` writes.
    """
    if not path.exists():
        return {}
    try:
        return _FILE.validate_json(path.read_bytes())
    except ValidationError as error:
        raise StabilityError(
            f"{path} must be what `python -m lnlib verdicts --seeds 0:20 --json FILE` "
            f"writes. Write it anew: {error}"
        ) from None


def save(found: Mapping[str, Stability], path: Path) -> None:
    """Write studies into a file; what it says of others and of other tiers stays.

    So does what it says of a study of which no seed has a result now.

    Raises:
        StabilityError: as in :func:`load`.
    """
    whole = load(path)
    for name, one in found.items():
        if one.commits:
            tiers = {old.tier: old for old in whole.get(name, ())} | {one.tier: one}
            whole[name] = tuple(tiers[tier] for tier in TIERS if tier in tiers)
    whole = dict(sorted(whole.items()))
    text = json.dumps(_FILE.dump_python(whole, mode="json"), indent=1)
    path.write_text(text + "\n", encoding="utf-8")
