"""Measure how fast the project is, against what people would use instead.

    python tests/benchmarks [runners] [staleness] [throughput] [growth]

Everything is a ratio within one run; a table is printed, and JSON is written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import growth
import runners
import staleness
import throughput
import torch
from rich.console import Console
from rich.table import Table

Rows = Iterable[dict[str, Any]]
PARTS: dict[str, dict[str, Callable[[], Rows]]] = {
    "runners": {"the same notebooks": runners.rows},
    "staleness": {"what a change costs": staleness.rows},
    "throughput": {"replicas, one core": throughput.rows},
    "growth": {"more seeds": growth.seeds, "more notebooks": growth.notebooks},
}


def show(title: str, rows: list[dict[str, Any]], console: Console) -> None:
    """Print rows as a table."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*(head.replace("_", " ") for head in heads), title=title)
    for row in rows:
        cells = (row.get(head, "") for head in heads)
        table.add_row(*(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells))
    console.print(table)


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser("tests/benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--output", type=Path, default=Path("_build/bench.json"))
    call = parser.parse_args()
    if unknown := set(call.parts) - set(PARTS):
        parser.error(f"PART must be one of {', '.join(PARTS)}; received {unknown}")
    console = Console(width=None if Console().is_terminal else 120)
    found: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    call.output.parent.mkdir(parents=True, exist_ok=True)
    for part in call.parts or PARTS:
        for title, measure in PARTS[part].items():
            found[title] = list(measure())
            show(title, found[title], console)
            call.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    console.print(f"As JSON: {call.output}", markup=False)


if __name__ == "__main__":
    main()
