"""What long work shows on stderr: when, how often, and in which form. Time is a clock that the test moves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore import units
from casstore.cli import capture
from casstore.cli.bars import Bars
from casstore.cli.progress import Display, JsonLines, Lines, Rate
from casstore.cli.session import Session
from casstore.progress import Part, ProgressEvent
from casstore.schema import validate
from tests.support import disks
from tests.support.command import Casstore
from tests.support.terminal import terminal

MIB = 1 << 20


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _work(display: Display, clock: Clock, *, seconds: int, rate: int = MIB, total: int | None = None) -> None:
    """Tell of `rate` bytes a second, in a hundred events each."""
    for step in range(seconds * 100 + 1):
        display(ProgressEvent("pushing", step * rate // 100, total))
        clock.now += 0.01


def _documents(text: str) -> list[dict[str, Any]]:
    documents = [json.loads(line) for line in text.splitlines()]
    for document in documents:
        validate(document, "cli-error" if "exit_code" in document else "cli-progress", subject="line")
    return documents


# --- plain lines -----------------------------------------------------------------------------------------------------


def test_short_work_writes_no_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(clock=clock, alive=False) as display:
        _work(display, clock, seconds=2)
    assert capsys.readouterr() == ("", "")


def test_lines_come_after_some_seconds_and_every_few_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(clock=clock, alive=False) as display:
        _work(display, clock, seconds=20, total=40 * MIB)
    out, err = capsys.readouterr()
    assert not out
    assert "\r" not in err
    assert err.splitlines() == [
        "pushing: 3.0 MiB of 40.0 MiB (7 %), 1.0 MiB/s, 37.0 s left",
        "pushing: 8.0 MiB of 40.0 MiB (20 %), 1.0 MiB/s, 32.0 s left",
        "pushing: 13.0 MiB of 40.0 MiB (32 %), 1.0 MiB/s, 27.0 s left",
        "pushing: 18.0 MiB of 40.0 MiB (45 %), 1.0 MiB/s, 22.0 s left",
    ]


def test_a_line_without_a_total_says_what_is_known(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(clock=clock, alive=False) as display:
        _work(display, clock, seconds=4)
    assert capsys.readouterr().err == "pushing: 3.0 MiB, 1.0 MiB/s\n"


def test_the_rate_is_that_of_this_phase_since_the_last_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(clock=clock, alive=False) as display:
        display(ProgressEvent("reading", 0, None))
        clock.now += 3
        display(ProgressEvent("reading", 9 * MIB, None))
        clock.now += 5
        display(ProgressEvent("reading", 19 * MIB, None))
        display(ProgressEvent("writing", 0, None))
        clock.now += 5
        display(ProgressEvent("writing", 5 * MIB, None))
        clock.now += 5
        display(ProgressEvent("writing", 0, None))  # all of it again: no rate below nothing
    assert capsys.readouterr().err.splitlines() == [
        "reading: 9.0 MiB, 3.0 MiB/s",
        "reading: 19.0 MiB, 2.0 MiB/s",
        "writing: 5.0 MiB, 1.0 MiB/s",
        "writing: 0 B, 0 B/s",
    ]


def test_a_phase_without_a_total_has_the_expected_one(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(8 * MIB, clock, alive=False) as display:
        _work(display, clock, seconds=4)
    assert "3.0 MiB of 8.0 MiB (37 %)" in capsys.readouterr().err


def test_lines_come_while_nothing_moves_too(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a rate, and without a time left that nobody knows."""
    with Lines(clock=clock, alive=False) as display:
        display.tick()
        display(ProgressEvent("pushing", 0, 4 * MIB))
        display(ProgressEvent("pushing", MIB, 4 * MIB))
        for _ in range(140):
            clock.now += 0.1
            display.tick()
    display.tick()
    assert capsys.readouterr().err.splitlines() == [
        f"pushing: 1.0 MiB of 4.0 MiB (25 %), {rest}" for rest in ("341.3 KiB/s, 9.0 s left", "0 B/s", "0 B/s")
    ]


@pytest.mark.parametrize("kind", [Lines, JsonLines])
def test_a_thread_shows_what_stalls_until_the_end(
    kind: type[Display], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("patience", "interval", "pulse"):
        monkeypatch.setattr(kind, name, 0.02)
    err = ""
    with kind() as display:
        display(ProgressEvent("pushing", 1, 2))
        deadline = time.monotonic() + 30
        while len(err.splitlines()) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
            err += capsys.readouterr().err
    assert len(err.splitlines()) >= 3
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr() == ("", "")


@given(st.lists(st.tuples(st.floats(0.01, 20), st.integers(0, 10 * MIB)), min_size=1))
def test_the_rate_of_what_moved_in_the_last_seconds(steps: list[tuple[float, int]]) -> None:
    rate, now, done = Rate(), 0.0, 0
    assert rate(now, done) == 0
    for seconds, count in steps:
        now, done = now + seconds, done + count
        assert 0 <= rate(now, done) <= max((n / s for s, n in steps)) * (1 + 1e-6)
    assert rate(now + 5, done) >= 0
    assert rate(now + 10, done) == 0
    assert rate(now + 11, 0) == 0


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_json_lines_follow_their_schema_and_end_where_the_work_ended(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with JsonLines(clock=clock, alive=False) as display:
        _work(display, clock, seconds=3, total=3 * MIB)
    documents = _documents(capsys.readouterr().err)
    assert 4 <= len(documents) <= 9
    done = [document["done_bytes"] for document in documents]
    assert done == sorted(set(done))
    assert (done[0], done[-1]) == (0, 3 * MIB)


def test_json_tells_the_parts_that_move(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines(clock=clock, alive=False) as display:
        display(ProgressEvent("pulling", 0, 30))
        for name, done in (("a", 5), ("b", 3), ("a", 10)):
            display(ProgressEvent("pulling", 8, 30, Part(name, done, 10)))
    first, last = _documents(capsys.readouterr().err)
    assert first["parts"] == []
    assert last["parts"] == [{"name": "b", "done_bytes": 3, "total_bytes": 10}]


def test_json_ends_every_phase(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines(clock=clock, alive=False) as display:
        for phase in ("reading", "writing"):
            for done in (0, 5, 10):
                display(ProgressEvent(phase, done, 10, Part(phase, done, 11)))
    documents = _documents(capsys.readouterr().err)
    ends = {document["phase"]: document for document in documents}
    assert {phase: end["done_bytes"] for phase, end in ends.items()} == {"reading": 10, "writing": 10}
    assert [part["name"] for part in ends["writing"]["parts"]] == ["writing"]


def test_json_says_every_few_seconds_what_does_not_move(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """And soon what came too soon after the last line."""
    with JsonLines(clock=clock, alive=False) as display:
        display(ProgressEvent("pushing", 0, 3))
        display(ProgressEvent("pushing", 1, 3))
        for _ in range(110):
            clock.now += 0.1
            display.tick()
    assert [document["done_bytes"] for document in _documents(capsys.readouterr().err)] == [0, 1, 1, 1]


def test_all_that_is_said_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    display = JsonLines()
    display.say("warning", "odd: \x1b[31m")
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert _documents(text) == [{"version": 1, "event": "warning", "message": "odd: \x1b[31m"}]


# --- any of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Lines, JsonLines])
def test_thousands_of_events_from_threads_cost_little(kind: type[Display], capsys: pytest.CaptureFixture[str]) -> None:
    """Every event is remembered, few go further; none after the end."""
    with kind() as display:

        def tell(number: int) -> None:
            for done in range(5_000):
                display(ProgressEvent("pushing", done, None, Part(f"{number}", done, 5_000)))

        threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    written = capsys.readouterr().err
    assert len(written.splitlines()) < 100
    display(ProgressEvent("pushing", 1, None))
    assert capsys.readouterr().err == ""


def test_a_stream_that_went_away_does_not_stop_the_work(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("click.echo", broken)
    with JsonLines(clock=clock, alive=False) as display:
        _work(display, clock, seconds=1)


def test_bars_show_a_few_parts_and_count_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with terminal() as (screen, shown), os.fdopen(os.dup(screen), "w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        with Bars(clock=clock, alive=False) as display:
            display(ProgressEvent("pulling", 0, 700))
            for number in range(7):
                display(ProgressEvent("pulling", number, 700, Part(f"pack {number}aaa", 1, 100)))
            clock.now += 2
            display(ProgressEvent("pulling", 8, 700, Part("pack 0aaa", 50, 100)))
            display.say("warning", "\x1b[35m[bold]odd")
            clock.now += 2
            display(ProgressEvent("pulling", 600, 700, Part("pack 0aaa", 100, 100)))
            time.sleep(0.3)  # rich draws in a thread of its own
    text = "".join(shown)
    assert "pulling (+3 more)" in text
    assert "pulling (+2 more)" in text
    assert all(f"pack {number}aaa " in text for number in range(5))
    assert "pack 5aaa" not in text
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "\\u001b[35m[bold]odd" in text
    assert re.search(r"pulling .* 600 B of 700 B +296 B/s +0\.3 s left", text)


def test_bars_on_a_narrow_terminal_are_cut_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "50")
    clock = Clock()
    with terminal() as (screen, shown), os.fdopen(os.dup(screen), "w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        with Bars(clock=clock, alive=False) as display:
            display(ProgressEvent("pushing", 0, 300 << 20))
            clock.now += 2
            display(ProgressEvent("pushing", 100 << 20, 300 << 20, Part("pack d1056f0a1b2c", 9 << 20, 33 << 20)))
            time.sleep(0.3)  # rich draws in a thread of its own
    text = re.sub(r"\x1b\[[0-9;]*m", "", "".join(shown))
    assert re.search(r"pushing +\S+ 100\.0 MiB of 300\.0 MiB", text)
    assert re.search(r"pack d1056f0a1b2c \S+ 9\.0 MiB of 33\.0 MiB", text)
    assert "…" not in text


# --- the option ------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    disks.random_sparse_file(path, seed=1)
    return path


def test_every_long_verb_takes_the_option(casstore: Casstore, disk: Path, tmp_path: Path) -> None:
    layout = f"oci:{tmp_path}/layout"
    casstore("create", "base", "--disk", disk)
    for args in (
        ("create", "more", "--disk", disk),
        ("verify", "base"),
        ("restore", "base", tmp_path / "back"),
        ("push", "base", layout),
        ("copy", f"{layout}:base", f"oci:{tmp_path}/other:base"),
        ("pull", f"{layout}:base"),
    ):
        documents = _documents(casstore(*args, "--progress", "json").stderr)
        progress = [document for document in documents if document["event"] == "progress"]
        assert progress[-1]["done_bytes"] > 0
    casstore("rm", "more")
    documents = _documents(casstore("create", "more", "--disk", disk, "--progress=json", "--json", "-q").stderr)
    assert {document["event"] for document in documents} == {"progress"}


def test_no_phase_does_more_than_its_total(casstore: Casstore, disk: Path, tmp_path: Path) -> None:
    """Also where content is read once more, or more often, to compare or compute digests of it."""
    casstore("create", "base", "--disk", disk, "--integrity=sparse")
    casstore("create", "next", "--disk", disk, "--parent", "base", "--integrity=blake3-merkle")
    phases = set()
    for args in (
        ("verify", "base"),
        ("export", "next", tmp_path / "common", "--with-parents"),
        ("export", "next", tmp_path / "converted", "--as", "0.6", "--with-parents"),
        ("restore", "base", f"{tmp_path}/artifact/", "--as", "0.7"),
        ("import", tmp_path / "artifact", "--name", "again"),
    ):
        told = _documents(casstore(*args, "--progress", "json").stderr)
        for document in (each for each in told if each["event"] == "progress"):
            phases.add(document["phase"])
            assert document["total_bytes"] is None or document["done_bytes"] <= document["total_bytes"], args
    assert phases >= {"verifying", "hashing", "exporting", "restoring"}


def test_with_json_progress_an_error_is_a_line_of_it(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    (error,) = _documents(casstore("push", "nothing", "oci:x", "--progress", "json", code=10).stderr)
    assert (error["error"], error["exit_code"]) == ("NotFound", 10)


@pytest.mark.parametrize("options", [["--progress", "none"], [], ["-q"], ["--json"]])
def test_short_work_shows_nothing(casstore: Casstore, disk: Path, options: list[str]) -> None:
    err = casstore("create", "base", "--disk", disk, *options).stderr
    assert err == "" if {"-q", "--json"} & set(options) else err.startswith("kept base: ")
    assert "\r" not in err


@pytest.mark.parametrize(
    ("options", "terminal", "shown"),
    [
        ([], True, "Bars"),
        ([], False, "Lines"),
        (["-q"], True, "Silent"),
        (["-q"], False, "Silent"),
        (["--json"], True, "Silent"),
        (["-q", "--progress", "bar"], False, "Bars"),
        (["--json", "--progress", "plain"], True, "Lines"),
        (["--progress", "json"], True, "JsonLines"),
        (["--progress", "none"], True, "Silent"),
    ],
)
def test_what_is_chosen(
    casstore: Casstore, monkeypatch: pytest.MonkeyPatch, options: list[str], terminal: bool, shown: str
) -> None:
    monkeypatch.setattr("casstore.cli.env._is_terminal", lambda _: terminal)
    chosen = []

    def create(session: Session, /, *_: object, **__: object) -> None:
        chosen.append(type(session.progress()).__name__)

    monkeypatch.setattr(capture.create, "callback", click.pass_obj(create))
    casstore("create", "base", "--disk", "x", *options)
    assert chosen == [shown]


@pytest.mark.parametrize(
    ("term", "options", "shown"),
    [("xterm", [], "bar"), ("xterm", ["--progress", "plain"], "lines"), ("dumb", ["--progress", "bar"], "lines")],
)
def test_what_lasts_is_shown_on_a_terminal(
    casstore: Casstore, disk: Path, term: str, options: list[str], shown: str
) -> None:
    casstore.env |= {"TERM": term}
    pause = {"bar": 0.2, "lines": 0.5}[shown]
    with terminal() as (screen, seen):
        with casstore.start("create", "slow", "--disk", "-", *options, stderr=screen) as process:
            assert process.stdin is not None
            data = memoryview(disk.read_bytes())
            for start in range(0, len(data), len(data) // 8):
                process.stdin.write(data[start : start + len(data) // 8])
                process.stdin.flush()
                time.sleep(pause)
            process.communicate(timeout=60)
        assert process.returncode == 0
    (text,) = seen
    assert "capturing" in text
    assert ("\x1b" in text) == (shown == "bar")
    assert bool(re.search(r"^capturing: .* \d+(\.\d .i)? ?B/s\r$", text, re.MULTILINE)) == (shown == "lines")


# --- sizes, durations, rates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        *[
            ("1", 1),
            ("500k", 500_000),
            ("500K", 500_000),
            ("500kB", 500_000),
            ("10MiB", 10 * MIB),
            ("10 mib", 10 * MIB),
        ],
        *[("1.5Ki", 1536), ("2g", 2 * 10**9), ("1TiB", 1 << 40), ("7B", 7), ("0.4k", 400)],
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert units.parse_size(text) == count
    assert units.parse_rate(f"{text}/s") == units.parse_rate(text) == count


@pytest.mark.parametrize("text", ["", "k", "-1", "1 000", "1e3", "0", "0.1", "10 MB/s", "1kk", "1iB", "\u0661", "1\n"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        units.parse_size(text)
    with pytest.raises(ValueError, match="expected a rate"):
        units.parse_rate(f"{text}/m")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5", 1.5),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1D", 86400),
        ("30m1h", 5400),
        ("2w", 1209600),
        ("90min", 5400),
        ("6mo", 6 * 30 * 86400),
        ("1Y", 365 * 86400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "h", "0", "0s", "-1", "1h30", "30 1h", "1h1h", "1 h", "99999d", "11y", "nan", "1h\n", "\u0663s"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        units.parse_duration(text)


@pytest.mark.parametrize(("text", "hertz"), [("5", 5), ("5/s", 5), ("90/m", 1.5), ("0.5/S", 0.5), ("36/h", 0.01)])
def test_frequencies(text: str, hertz: float) -> None:
    assert units.parse_frequency(text) == pytest.approx(hertz)


@pytest.mark.parametrize("text", ["", "0", "/s", "5/d", "-5", "5/ s"])
def test_what_is_no_frequency(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        units.parse_frequency(text)


@given(st.integers(1, 10**15 - 1), st.sampled_from(["", "b", "B"]))
def test_bytes_are_themselves(count: int, unit: str) -> None:
    assert units.parse_size(f"{count}{unit}") == count


@given(st.integers(1, 999), st.sampled_from("kmgt"), st.booleans())
def test_binary_units_are_larger_than_decimal_ones(number: int, unit: str, upper: bool) -> None:
    unit = unit.upper() if upper else unit
    decimal, binary = units.parse_size(f"{number}{unit}B"), units.parse_size(f"{number}{unit}iB")
    power = "kmgt".index(unit.lower()) + 1
    assert (decimal, binary) == (number * 1000**power, number * 1024**power)


@given(st.dictionaries(st.sampled_from("smhdwSMHDW"), st.integers(0, 999), min_size=1), st.sampled_from([0, 0.5]))
def test_the_parts_of_a_duration_add_up(parts: dict[str, int], fraction: float) -> None:
    seconds = sum(
        (count + fraction) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[unit.lower()]
        for unit, count in parts.items()
    )
    text = "".join(f"{count + fraction}{unit}" for unit, count in parts.items())
    if len({unit.lower() for unit in parts}) == len(parts) and 0 < seconds <= 10 * 365 * 86400:
        assert units.parse_duration(text) == seconds
    else:
        with pytest.raises(ValueError, match="expected"):
            units.parse_duration(text)


@given(st.text(alphabet="0123456789.kKmMgGiIbBsShHdD /-+e\n", max_size=12))
def test_anything_else_is_refused_with_an_explanation(text: str) -> None:
    for parse in (units.parse_size, units.parse_rate, units.parse_duration, units.parse_frequency):
        try:
            value: float = parse(text)
        except ValueError as error:
            assert str(error).startswith("expected")  # noqa: PT017
        else:
            assert value > 0


def test_stderr_is_not_needed(casstore: Casstore, disk: Path) -> None:
    """Its reader goes away while lines are written."""
    with casstore.start("create", "base", "--disk", disk, "--progress", "json", stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        process.stderr.close()
        process.wait(60)
    assert casstore.json("list")["snapshots"][0]["name"] == "base"
