"""The charts of the benchmarks' page, one for each part that has one: results in, SVG out."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tests.benchmarks import chart, speed, transfer
from tests.benchmarks.report import megabytes, seconds

_SHOWN = 6
"""Steps of a chain that have a bar."""


@dataclass(frozen=True)
class Charted:
    """How a part is drawn, and what is said to those who do not see it."""

    told: str
    draw: Callable[[Mapping[str, Any]], str]


def _speed(result: Mapping[str, Any]) -> str:
    measured = speed.Speed(**result)  # type: ignore[typeddict-item]
    panels = []
    for figure in speed.FIGURES.values():
        medians = {tool: speed.median(measured, tool, figure) for tool in measured["rounds"]}
        bars = [chart.Bar(tool, value, figure.show(value)) for tool, value in medians.items()]
        panels.append(chart.Panel(figure.name, bars))
    return chart.draw("casstore compared: time and bytes, less is better", panels, highlight=speed.OURS)


def _transfer(result: Mapping[str, Any]) -> str:
    panels = []
    for what in transfer.COMPARED:
        bars = []
        for tool, rounds in result["rounds"].items():
            theirs = what if tool == transfer.OURS else transfer.COMPARED[what]
            median = statistics.median(one[theirs] for one in rounds)
            bars.append(chart.Bar(tool, median, seconds(median)))
        panels.append(chart.Panel(what, bars))
    return chart.draw("Push and pull beside skopeo: time, less is better", panels, highlight=transfer.OURS)


def _chain(result: Mapping[str, Any]) -> str:
    steps = result["steps"]
    last = len(steps["added"]) - 1
    shown = sorted({round(last * part / (_SHOWN - 1)) for part in range(_SHOWN)})
    columns: dict[str, tuple[list[float], Callable[[float], str]]] = {
        "a pull of this step fetches": (steps["listed"], megabytes),
        "written, all steps so far": (list(accumulate(steps["added"])), megabytes),
        "packs that this step lists": (steps["packs"], lambda number: f"{number:.0f}"),
    }
    panels = [
        chart.Panel(title, [chart.Bar(f"step {step + 1}", values[step], show(values[step])) for step in shown])
        for title, (values, show) in columns.items()
    ]
    return chart.draw("A long chain of small steps: what grows, and what does not", panels, highlight="")


CHARTS = {
    "speed": Charted("Bars: time and bytes of each tool; the tables below have the same figures", _speed),
    "transfer": Charted("Bars: time of casstore and of skopeo; the table below has the same figures", _transfer),
    "chain": Charted("Bars: what a pull fetches, what was written, and the packs listed, along the chain", _chain),
}
