"""`make book` renders again whenever a page would change."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BARE = {k: v for k, v in os.environ.items() if not k.startswith("LNLIB_BOOK_")}


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A makefile with one more target, which prints the digest of all pages."""
    path = tmp_path / "Makefile"
    path.write_text("include Makefile\nprint-digest:\n\t@$(PAGE_DIGEST)\n", "utf-8")
    return path


def digest(rules: Path, **variables: str) -> str:
    """Return the digest of all pages with those variables in the environment."""
    command = ["make", "-s", "-f", str(rules), "print-digest"]
    done = subprocess.run(
        command, cwd=ROOT, env=BARE | variables, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def test_a_variable_of_every_page_is_in_the_digest(rules: Path) -> None:
    repository = "https://example.org/book"
    digests = [
        digest(rules),
        digest(rules, LNLIB_BOOK_TIER="quick"),
        digest(rules, LNLIB_BOOK_REPOSITORY=repository),
    ]
    assert all(len(found) == 40 for found in digests)
    assert len(set(digests)) == 3
    assert digest(rules) == digests[0]
    assert digest(rules, OTHER="1") == digests[0]
