"""Numbers as people write them, and stops that stay with their formulas."""

from __future__ import annotations

from typing import Any

import pytest
from docutils import nodes
from docutils.utils import new_document


@pytest.mark.parametrize(
    ("printed", "written"),
    [
        ("4.1e-05", "4.1\u202f×\u202f10⁻⁵"),
        ("1e-12", "10⁻¹²"),
        ("[-1e-12, 1e+06]", "[-10⁻¹², 10⁶]"),
        ("1.3e-02 (own)", "0.013 (own)"),
        ("2.87e+03", "2870"),
        ("0.0e+00", "0"),
        ("by 3e-07.", "by 3\u202f×\u202f10⁻⁷."),
        ("-0.00 [-0.03, 0.00]", "0.00 [-0.03, 0.00]"),
        ("by -0.0.", "by 0.0."),
        ("-0.004, 1.50, v1.2e3x, a1e5, page-0.5", None),
    ],
)
def test_numbers_are_written_as_people_do(
    readable: Any, printed: str, written: str | None
) -> None:
    assert readable.readable(printed) == (printed if written is None else written)


def test_code_pictures_and_attributes_stay(readable: Any) -> None:
    kept = "<code>1e-05</code><svg><text>1e-05</text></svg><pre>\n1e-05</pre>"
    page = f'<p title="1e-05">at 1e-05 {kept} and <b>2e-05</b></p>'
    assert readable.readable_html(page) == page.replace("at 1e-05", "at 10⁻⁵").replace(
        "2e-05", "2\u202f×\u202f10⁻⁵"
    )
    figure = "<p>1e-05</p><figcaption>1e-05, <code>1e-05</code></figcaption>"
    assert readable.readable_captions(figure) == (
        "<p>1e-05</p><figcaption>10⁻⁵, <code>1e-05</code></figcaption>"
    )


def test_a_claims_id_may_break_behind_its_dot(readable: Any) -> None:
    page = "<td><code>a-b.c-d</code></td><code>1.5 a</code><code>a.b.c</code> a.b"
    told = page.replace("a-b.c-d", "a-b.<wbr>c-d")
    assert readable.breakable_ids(page) == told


def test_the_cells_of_tables_are_read(readable: Any) -> None:
    tree = new_document("a page")
    cell = nodes.paragraph("", "1e-05 ", nodes.literal("", "1e-05"))
    tree += [nodes.entry("", cell), nodes.paragraph("", "1e-05")]
    readable.readable_tables(tree)
    assert [p.astext() for p in tree.findall(nodes.paragraph)] == [
        "10⁻⁵ 1e-05",
        "1e-05",
    ]


def test_a_stop_stays_with_its_formula(readable: Any) -> None:
    tree = new_document("a page")
    parts = ("$a", ", or ", "$b", " here (", "$c", " and ", "$d", ").")
    texts = [nodes.math("", p[1:]) if p[0] == "$" else nodes.Text(p) for p in parts]
    tree += nodes.paragraph("", "", *texts)
    readable.keep_stops(tree)
    assert [one.astext() for one in tree.findall(nodes.inline)] == ["a,", "(c", "d)."]
    assert tree.astext() == "a, or b here (c and d)."
