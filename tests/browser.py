"""Find the Chromium of the browser tests, or install one: `python tests/browser.py`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
COMMANDS = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
]
MISSING = """\
The browser tests need Chromium or Chrome. None was found and none could be installed.
Install one: apt-get install chromium (Debian), or playwright install chromium (else).
Or name one: CHROMIUM=/path/to/chromium make test"""


def find_browser() -> Path | None:
    """Return the program that `CHROMIUM` names, else the first one found, else None.

    Raises ValueError if `CHROMIUM` is set and names no program.
    """
    if named := os.environ.get("CHROMIUM"):
        if program := shutil.which(named):
            return Path(program)
        raise ValueError(
            f"CHROMIUM must name a program, received {named!r}. "
            "Correct it, or unset it and let the tests look for one."
        )
    for command in COMMANDS:
        if program := shutil.which(command):
            return Path(program)
    return playwright_browser()


def playwright_browser() -> Path | None:
    """Return the Chromium that `playwright install chromium` put there, if it did."""
    with sync_playwright() as playwright:
        program = Path(playwright.chromium.executable_path)
    return program if program.is_file() else None


def install_browser() -> None:
    """Install Debian's Chromium if we may, else Playwright's own. May do neither."""
    attempts = [[[sys.executable, "-m", "playwright", "install", "chromium"]]]
    if shutil.which("apt-get") and os.geteuid() == 0:
        install = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
        attempts.insert(0, [["apt-get", "update"], install])
    for commands in attempts:
        print("Installing a browser:", " && ".join(map(" ".join, commands)), flush=True)
        if all(subprocess.run(command).returncode == 0 for command in commands):
            return


def in_ci() -> bool:
    """Whether `CI` is set, as continuous integration sets it."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


@contextmanager
def open_browser(program: Path) -> Iterator[Browser]:
    """Start `program` without a window and yield it as a Playwright browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def main() -> int:
    """Find or install a browser. Without one: 1 in CI, else 0 and the tests skip."""
    program = find_browser()
    if program is None:
        install_browser()
        program = find_browser()
    if program is not None:
        print(f"Browser: {program}")
        return 0
    print(MISSING, file=sys.stderr)
    if in_ci():
        return 1
    print("The tests that need it are skipped.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
