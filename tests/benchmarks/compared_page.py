"""Fills docs/explanation/compared.md from compared.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import computed
from tests.benchmarks.report import machine_text


def write(folder: Path, document: Mapping[str, Any]) -> None:
    """compared.json, and the computed parts of compared.md."""
    (folder / "compared.json").write_text(json.dumps(document, indent=1) + "\n")
    page = folder / "compared.md"
    page.write_text(computed.fill(page.read_text(), blocks(document)))


def blocks(document: Mapping[str, Any]) -> dict[str, str]:
    """The computed parts, by name."""
    tables = document["tables"]
    return {
        **{name: _table(rows) for name, rows in tables.items()},
        "commands": _commands([row for rows in tables.values() for row in rows]),
        "circumstances": _circumstances(document["measured"]),
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    tools = list(dict.fromkeys(tool for row in rows for tool in row["cells"]))
    lines = ["| | " + " | ".join(tools) + " |", "|" + "---|" * (len(tools) + 1)]
    for row in rows:
        told = [_cell(row["cells"].get(tool)) for tool in tools]
        lines.append(f"| {row['what']} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "not run here"
    text = str(cell["text"]).replace("|", "\\|")
    return f"{text} ([source]({cell['url']}))" if "url" in cell else text


def _commands(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| what | tool | command |", "|---|---|---|"]
    for row in rows:
        for tool, cell in row["cells"].items():
            if "command" in cell:
                without = f"; it has none of: {', '.join(cell['absent'])}" if "absent" in cell else ""
                command = str(cell["command"]).replace("|", "\\|")
                lines.append(f"| {row['what']} | {tool} | `{command}`{without} |")
    return "\n".join(lines)


def _circumstances(measured: Mapping[str, Any]) -> str:
    machine = measured["machine"]
    named = "; ".join(said if name in said else f"{name} {said}" for name, said in measured["versions"].items())
    return (
        f"Run on {measured['date']} with `{measured['command']}`: disks of {measured['size']} MiB with"
        f" {measured['data']} MiB of files; {machine_text(machine)}; {named}."
    )
