"""What axe-core says of a page, and what it is known to say of our theme."""

from __future__ import annotations

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

# Rule, what the element looks like, and why it stays. Each is a finding of the theme or
# of docutils: mend it there. A finding that is not here fails the tests.
KNOWN = [
    (
        "region",
        'class="sidebar-primary-item"',
        "The theme puts the link with the book's name outside every landmark.",
    ),
    (
        "summary-name",
        "<summary>",
        "The theme's list of contents opens its sections by an arrow without a name.",
    ),
    (
        "aria-deprecated-role",
        'role="doc-biblioentry"',
        "docutils writes a role for entries that DPUB-ARIA has since withdrawn.",
    ),
    (
        "aria-allowed-role",
        'role="doc-biblioentry"',
        "The same role.",
    ),
    (
        "aria-required-children",
        'class="citation-list"',
        "With that role the entries do not count as items of their list.",
    ),
]
# Left out of a run, and what looks at it instead: page_report.js compares every text
# with its background in both themes (axe takes a minute for it on a long chapter), and
# the words for figures. Inside figures and formulas there is nothing of ours to label.
OPTIONS = {
    "resultTypes": ["violations"],
    "rules": {"color-contrast": {"enabled": False}},
}
CONTEXT = {"exclude": [[".lnlib-figure svg > *"], ["mjx-container > *"]]}

# A cell that holds a formula alone looks empty, because formulas are left out.
RUN = """([context, options]) => axe.run(context, options).then(
  ({violations}) => violations.flatMap(({id, nodes}) => nodes
    .filter(({target}) => id !== "empty-table-header"
      || !document.querySelector(`${target} mjx-container`))
    .map(({html}) => [id, html])))"""


def violations(tab: Page) -> list[tuple[str, str]]:
    """Return the rule and the element of everything that axe-core finds on a page."""
    tab.evaluate(AXE_SCRIPT)
    found: list[list[str]] = tab.evaluate(RUN, [CONTEXT, OPTIONS])
    return [(rule, element) for rule, element in found]


def is_known(rule: str, element: str) -> bool:
    """Whether a finding is one of the theme's own."""
    start = element[: element.index(">") + 1]
    return any(rule == known and mark in start for known, mark, _ in KNOWN)
