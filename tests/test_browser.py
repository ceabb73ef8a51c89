"""The search for a browser: what it finds, and what happens when it finds none."""

from pathlib import Path

import browser as module
import pytest


@pytest.fixture
def no_browser(monkeypatch, tmp_path):
    """A machine without any browser, on which none can be installed."""
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "COMMANDS", ["chromium", "google-chrome"])
    monkeypatch.setattr(module, "playwright_browser", lambda: None)
    monkeypatch.setattr(module, "install_browser", lambda: None)
    return tmp_path


def program(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_browser_opens_a_page(browser):
    page = browser.new_page()
    page.set_content("<title>A page</title>")
    assert page.title() == "A page"
    page.close()


def test_first_command_on_the_path_is_found(no_browser):
    chrome = program(no_browser, "google-chrome")
    assert module.find_browser() == chrome
    chromium = program(no_browser, "chromium")
    assert module.find_browser() == chromium


def test_named_browser_comes_first(no_browser, monkeypatch):
    program(no_browser, "chromium")
    named = program(no_browser, "my-browser")
    monkeypatch.setenv("CHROMIUM", str(named))
    assert module.find_browser() == named


def test_named_browser_must_exist(no_browser, monkeypatch):
    program(no_browser, "chromium")
    monkeypatch.setenv("CHROMIUM", "/no/such/browser")
    with pytest.raises(ValueError, match=r"CHROMIUM must name .*'/no/such/browser'"):
        module.find_browser()


def test_missing_browser_is_an_error_in_ci_only(no_browser, monkeypatch, capsys):
    assert module.main() == 0
    assert "skipped" in capsys.readouterr().err
    monkeypatch.setenv("CI", "true")
    assert module.main() == 1
    assert "apt-get install chromium" in capsys.readouterr().err


def test_missing_browser_is_installed(no_browser, monkeypatch, capsys):
    install = lambda: program(no_browser, "chromium")  # noqa: E731
    monkeypatch.setattr(module, "install_browser", install)
    monkeypatch.setenv("CI", "true")
    assert module.main() == 0
    assert "chromium" in capsys.readouterr().out


def test_playwright_installs_where_apt_cannot(no_browser, monkeypatch):
    monkeypatch.undo()
    commands = []

    def run(command):
        commands.append(command)
        return type("Done", (), {"returncode": int(command[0] == "apt-get")})

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    module.install_browser()
    assert [command[0] for command in commands] == ["apt-get", module.sys.executable]
    assert commands[-1][1:] == ["-m", "playwright", "install", "chromium"]
