"""Write what programs print as a book does.

Numbers such as 4.1e-05 stand in tables, findings and captions; here they become powers
of ten.  And a line must not break between a formula and its comma or bracket, nor in a
word of a claim's id.
"""

from __future__ import annotations

import re
from decimal import Decimal

from docutils import nodes

_EXPONENT = re.compile(r"(?<![\w.])(\d(?:\.\d+)?)e([+-]?\d+)(?!\.?\w)")
_MINUS_ZERO = re.compile(r"(?<![\w.])[-−](0(?:\.0+)?)(?!\.?\d)")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_ASIDE = re.compile(r"(<(code|pre|script|style|svg)\b.*?</\2>|<[^>]*>)", re.DOTALL)
_CAPTION = re.compile(r"(?<=<figcaption>).*?(?=</figcaption>)", re.DOTALL)
_ID = re.compile(r"(?<=<code>)([\w-]+\.)(?=[\w-]+</code>)")
_STOP = re.compile(r"[,.;:!?)]+")


def readable(text: str) -> str:
    """Return text with numbers as people write them.

    1.3e-02 becomes 0.013, 4.1e-05 becomes 4.1 × 10⁻⁵, and -0.00 becomes 0.00.
    """
    return _MINUS_ZERO.sub(r"\1", _EXPONENT.sub(_power, text))


def _power(number: re.Match[str]) -> str:
    digits, exponent = number[1], int(number[2])
    if not float(digits):
        return "0"
    if -4 < exponent < 5:
        return f"{Decimal(number[0]):f}"
    power = "10" + str(exponent).translate(_RAISED)
    return power if digits == "1" else f"{digits}\u202f×\u202f{power}"


def readable_html(page: str) -> str:
    """Return HTML with its text readable; code, pictures and attributes stay."""
    parts = _ASIDE.split(page)  # text, tag or element, its name, text, …
    parts[::3] = map(readable, parts[::3])
    del parts[2::3]
    return "".join(part or "" for part in parts)


def readable_captions(page: str) -> str:
    """Return HTML with the captions of its figures readable."""
    return _CAPTION.sub(lambda found: readable_html(found[0]), page)


def breakable_ids(page: str) -> str:
    """Return HTML in which the id of a claim may break behind its dot."""
    return _ID.sub(r"\1<wbr>", page)


def readable_tables(doctree: nodes.document) -> None:
    """Make the numbers in the cells of all tables readable."""
    for entry in doctree.findall(nodes.entry):
        for text in list(entry.findall(nodes.Text)):
            if isinstance(text.parent, nodes.TextElement) and not isinstance(
                text.parent, (nodes.literal, nodes.math)
            ):
                text.parent.replace(text, nodes.Text(readable(str(text))))


def keep_stops(doctree: nodes.document) -> None:
    """Keep a formula in a line with the comma behind it and the bracket before it."""
    for formula in list(doctree.findall(nodes.math)):
        parent, at = formula.parent, formula.parent.index(formula)
        before, behind = (
            str(near[0]) if near and isinstance(near[0], nodes.Text) else ""
            for near in (parent[at - 1 : at], parent[at + 1 : at + 2])
        )
        stop = _STOP.match(behind)
        if not (stop or before.endswith("(")):
            continue
        together = nodes.inline("", "", classes=["lnlib-together"])
        formula.replace_self(together)
        if stop:
            parent[at + 1] = nodes.Text(behind[stop.end() :])
        if before.endswith("("):
            parent[at - 1] = nodes.Text(before[:-1])
            together += nodes.Text("(")
        together += [formula, nodes.Text(stop[0] if stop else "")]
