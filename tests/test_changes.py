"""The changelog of verdicts ends with what the registry expects, and says why."""

from __future__ import annotations

import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from lnlib.registry import Verdict, load_registry

ROOT = Path(__file__).resolve().parents[1]
CHANGES = yaml.safe_load((ROOT / "book" / "verdict_changes.yml").read_text("utf-8"))
FORM = ROOT / ".github" / "ISSUE_TEMPLATE" / "dispute_a_verdict.yml"


def expected() -> dict[str, str]:
    """Return the verdict that the registry expects of each claim."""
    return {c.id: c.expected for r in load_registry().values() for c in r.claims}


def faults(changes: dict[str, list[Any]], expected: dict[str, str]) -> list[str]:
    """Return where the changelog and the registry do not fit each other."""
    told = [f"{claim} has no entry" for claim in expected.keys() - changes.keys()]
    for claim, entries in changes.items():
        last, now = entries[-1]["verdict"], expected.get(claim, "withdrawn")
        if last != now:
            told.append(f"{claim}: the last entry is {last}, the registry has {now}")
        for before, after in pairwise(entries):
            if not str(after.get("because", "")).strip():
                told.append(f"{claim}: a change must say why")
            if before["verdict"] == after["verdict"] or before["date"] > after["date"]:
                told.append(f"{claim}: an entry must change, and follow, the last")
        for entry in entries:
            if entry["verdict"] not in (*get_args(Verdict), "withdrawn"):
                told.append(f"{claim}: {entry['verdict']} is no verdict")
    return sorted(told)


def test_the_changelog_ends_with_the_registry() -> None:
    assert faults(CHANGES, expected()) == []


DAY = datetime.date(2026, 1, 2)
GOOD = {"a.b": [{"date": DAY, "verdict": "holds"}]}


@pytest.mark.parametrize(
    ("changes", "registry", "fault"),
    [
        (GOOD, {"a.b": "fails"}, "the last entry is holds, the registry has fails"),
        (GOOD, {"a.b": "holds", "a.c": "holds"}, "a.c has no entry"),
        (GOOD, {}, "the registry has withdrawn"),
        (
            {"a.b": [*GOOD["a.b"], {"date": DAY, "verdict": "fails"}]},
            {"a.b": "fails"},
            "must say why",
        ),
        (
            {"a.b": [*GOOD["a.b"], {"date": DAY, "verdict": "holds", "because": "x"}]},
            {"a.b": "holds"},
            "must change",
        ),
        ({"a.b": [{"date": DAY, "verdict": "maybe"}]}, {"a.b": "maybe"}, "no verdict"),
    ],
)
def test_faults_are_noticed(
    changes: dict[str, list[Any]], registry: dict[str, str], fault: str
) -> None:
    assert faults(GOOD, {"a.b": "holds"}) == []
    assert [f for f in faults(changes, registry) if fault in f]


def test_the_form_offers_every_verdict() -> None:
    fields = {f["id"]: f for f in yaml.safe_load(FORM.read_text("utf-8"))["body"]}
    assert set(get_args(Verdict)) <= set(fields["instead"]["attributes"]["options"])
    assert fields["claim"]["validations"]["required"]
