"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import MISSING, find_browser, in_ci, open_browser
from hypothesis import settings
from playwright.sync_api import Browser

# The first call of a torch function is slow: no deadline for one example.
settings.register_profile("book", deadline=None, derandomize=in_ci())
settings.load_profile("book")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium. Without one the test is skipped, and fails in CI."""
    program = find_browser()
    if program is None:
        (pytest.fail if in_ci() else pytest.skip)(MISSING)
    with open_browser(program) as started:
        yield started


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the book's extension."""
    root = Path(__file__).resolve().parents[1]
    monkeypatch.syspath_prepend(root / "book" / "_ext")
    return __import__("lnlib_book")


@pytest.fixture
def readable(extension: Any) -> Any:
    """The module that writes what programs print as a book does."""
    return __import__("readable")
