"""Split a source text into its headings and numbered sentences.

The rule, in this order:

1. A line that starts with `#`, or an unindented line without `=` that ends neither
   in a full stop nor in a colon, is a heading. Headings are places, not sentences.
2. Every other line that is not blank is one block. Its mark of a list item (a bullet,
   or a number and a full stop) is dropped.
3. Links become their text, stars of emphasis are dropped, and every run of white
   space becomes one space.
4. A block ends a sentence after each full stop, question mark or exclamation mark that
   is followed by a space and a capital letter. What is left is a sentence too: a list
   item, a formula, or the words that introduce a list.

Sentences are numbered from 1 under the heading that stands last before them.

`python book/sources/split.py FILE` prints the numbers, digests and opening words.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
ITEM = re.compile(r"^\s*(?:•|\d+\.)\s+")
END = re.compile(r"(?<=[.?!]) (?=[A-Z])")


def split(text: str) -> dict[str, list[str]]:
    """Return the sentences of `text` by heading, both in their order.

    Raises:
        ValueError: the text does not start with a heading, or repeats one.
    """
    places: dict[str, list[str]] = {}
    for line in text.splitlines():
        block = _plain(ITEM.sub("", line))
        if not block:
            continue
        if _is_heading(line):
            heading = block.lstrip("# ")
            if heading in places:
                raise ValueError(f"headings must differ, {heading!r} stands twice")
            places[heading] = []
        elif not places:
            raise ValueError(f"the text must start with a heading, not {block[:40]!r}")
        else:
            places[heading].extend(END.split(block))
    return places


def digest(text: str) -> str:
    """Return the SHA-256 digest of `text` in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_all(digests: list[str]) -> str:
    """Return the digest over the digests of all sentences, in their order."""
    return digest("\n".join(digests))


def _plain(block: str) -> str:
    return " ".join(LINK.sub(r"\1", block).replace("*", "").split())


def _is_heading(line: str) -> bool:
    if line.startswith("#"):
        return True
    return not line[0].isspace() and "=" not in line and line.rstrip()[-1] not in ".:"


if __name__ == "__main__":
    for name, sentences in split(Path(sys.argv[1]).read_text("utf-8")).items():
        print(name)
        for number, sentence in enumerate(sentences, start=1):
            opening = " ".join(sentence.split()[:8])
            print(f"  {number:2d} {digest(sentence)[:12]} {opening}")
