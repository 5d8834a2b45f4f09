"""The computed pages of docs/explanation: they are what their numbers say, and the model behind them adds up."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from casstore import spec
from casstore.diskmap import SnapshotMap
from casstore.errors import DocumentError
from casstore.oci import ArtifactManifest
from tests import transcript
from tests.benchmarks import compared_cells, compared_page, computed, costs, scaling, scaling_page, why
from tests.benchmarks import page as benchmarks
from tests.benchmarks.compared import REGISTRY_TOOLS, SNAPSHOT_TOOLS
from tests.benchmarks.costs import Client, Cost, Link, Registry
from tests.support.proxy import TcpProxy

PAGES = Path(__file__).parents[1] / "docs" / "explanation"


def _document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PAGES / name).read_text())
    return found


# --- the pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "numbers", "maker"),
    [
        ("scaling.md", "scaling.json", scaling_page),
        ("compared.md", "compared.json", compared_page),
        ("why-packs.md", "why.json", why),
        ("why-refs-are-symlinks.md", "why.json", why),
    ],
)
def test_the_computed_parts_are_those_of_the_numbers(page: str, numbers: str, maker: Any) -> None:
    text = (PAGES / page).read_text()
    found = maker.blocks(_document(numbers))
    assert set(computed.names(text)) <= set(found)
    assert computed.fill(text, found) == text, f"run: python -m {maker.__name__.removesuffix('_page')} --render"


def test_the_chart_is_that_of_the_numbers() -> None:
    drawn = (PAGES / "scaling.svg").read_text()
    assert drawn == scaling_page.draw(_document("scaling.json"))
    told = "".join(ET.fromstring(drawn).itertext())  # noqa: S314  # our own
    assert "100,000 hosts" in told


def test_the_page_of_the_benchmarks_is_that_of_the_numbers(tmp_path: Path) -> None:
    folder = PAGES.parent / "benchmarks"
    shutil.copy(folder / "results.json", tmp_path)
    benchmarks.draw(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert {"index.md", "speed.svg", "transfer.svg", "chain.svg"} <= drawn
    for name in sorted(drawn):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), "run: python -m tests.benchmarks.page"


def test_a_block_is_replaced_and_nothing_else() -> None:
    page = "a\n<!-- computed: one -->\nold\n<!-- end -->\nb\n<!-- computed: two -->\n<!-- end -->\nc\n"
    filled = computed.fill(page, {"one": "1\n", "two": "2"})
    assert (
        filled == "a\n<!-- computed: one -->\n\n1\n\n<!-- end -->\nb\n<!-- computed: two -->\n\n2\n\n<!-- end -->\nc\n"
    )
    assert computed.fill(filled, {"one": "1", "two": "2"}) == filled
    with pytest.raises(KeyError):
        computed.fill(page, {"one": "1"})


def test_what_casstore_lacks_comes_first() -> None:
    headings = re.findall(r"^## (.+)$", (PAGES / "compared.md").read_text(), re.MULTILINE)
    assert headings[0] == "What casstore lacks"


@pytest.mark.parametrize(
    ("rows", "tools"), [(compared_cells.SNAPSHOTS, SNAPSHOT_TOOLS), (compared_cells.REGISTRIES, REGISTRY_TOOLS)]
)
def test_every_tool_has_a_cell_in_every_row(rows: dict[str, Any], tools: tuple[str, ...]) -> None:
    for what, row in rows.items():
        assert tuple(row) == tools, what


def test_every_cell_was_run_or_is_cited() -> None:
    cells = [
        (row["what"], tool, cell)
        for rows in _document("compared.json")["tables"].values()
        for row in rows
        for tool, cell in row["cells"].items()
    ]
    assert len(cells) > 100
    for what, tool, cell in cells:
        assert ("command" in cell) != ("url" in cell), f"{what}, {tool}"
        assert cell["text"] not in {"does not work here", "not installed here"}, f"{what}, {tool}"
        if "url" in cell and not re.match(r"https?://[^ ]+\Z", cell["url"]):
            assert (PAGES / cell["url"]).resolve().exists(), f"{what}, {tool}"


# --- the model -------------------------------------------------------------------------------------------------------


def test_a_transfer_costs_requests_bytes_and_time() -> None:
    client, link = Client(start=0.5, moving=1e-9, checking=2e-9), Link(rate=1e8, round_trip=0.1)
    push, pull = costs.pushed(10**8, 8, client, link), costs.pulled(10**8, 8, client, link, 3 * 10**8)
    assert push.requests == 29
    assert push.seconds == pytest.approx(0.5 + (5 + 3 * 2) * 0.1 + push.bytes / 1e8)
    assert pull.requests == 9
    assert pull.seconds == pytest.approx(0.5 + (1 + 2) * 0.1 + pull.bytes / 1e8)
    # On a faster way the client is the limit.
    quick = costs.pulled(10**8, 8, client, Link(rate=1e12), 3 * 10**8)
    assert quick.seconds == pytest.approx(0.5 + quick.bytes * 1e-9 + 0.6)


def test_mirrors_take_the_hosts_from_the_registry() -> None:
    one = Cost(bytes=1e9, requests=10, seconds=2)
    assert costs.herd(1, one, Registry(1e9)) == Cost(1e9, 10, 2)  # the host is slower than the registry
    assert costs.herd(100, one, Registry(1e9)) == Cost(1e11, 1000, 100)
    assert costs.herd(100, one, Registry(1e9, mirrors=10)) == Cost(1e10, 100, 10 + 10)
    assert costs.herd(5, one, Registry(1e9, mirrors=10)) == costs.herd(5, one, Registry(1e9))


@pytest.mark.parametrize(
    ("stored", "packs"),
    [
        (1, 1),
        (spec.PACK_TARGET, 1),
        (spec.PACK_TARGET + 1, 2),
        (1024 * spec.PACK_TARGET, 1024),
        (1026 * spec.PACK_TARGET, 1025),
        (1024 * (1 + 2) * spec.PACK_TARGET + 1, 2049),
    ],
)
def test_later_packs_are_larger(stored: int, packs: int) -> None:
    assert costs.packs_of(stored) == packs


def test_the_largest_manifest_is_the_largest() -> None:
    most = scaling_page.largest_manifest()
    assert len(costs.manifest_of(most)) <= spec.MAX_MANIFEST
    with pytest.raises(DocumentError):
        costs.manifest_of(most + 1)
    assert len(ArtifactManifest.parse(costs.manifest_of(3), subject="made up").packs) == 3


def test_a_synthetic_map_is_a_map() -> None:
    made = scaling.synthetic_map(10 * spec.GIB, packs=50, runs=2000, extents=300, chunks=400_000)
    read = SnapshotMap.parse(made.to_bytes(), subject="made up")
    disk = read.disks[0]
    assert (len(read.packs), len(disk.runs)) == (50, 2000)
    assert 290 < len(disk.extents) <= 300
    assert int(disk.runs.length.sum()) == 10 * spec.GIB
    assert 398_000 < int(disk.runs.count.sum()) <= 402_000


def test_the_model_was_right_within_a_fifth() -> None:
    for check in _document("scaling.json")["result"]["checks"]:
        for what, most in (("bytes", 0.01), ("requests", 0.0)):
            expected, got = check["predicted"][what], check["measured"][what]
            assert abs(expected / got - 1) <= most, (check["what"], what)
        if "MB/s" in check["what"]:
            assert abs(check["predicted"]["seconds"] / check["measured"]["seconds"] - 1) < 0.2, check["what"]


@pytest.mark.parametrize(
    ("show", "number", "text"),
    [
        (scaling_page.size, 999, "999 B"),
        (scaling_page.size, 1536, "1.5 KiB"),
        (scaling_page.size, 2**51, "2.0 PiB"),
        (scaling_page.count, 1234.2, "1,235"),
        (scaling_page.count, 2.6e7, "26 million"),
        (scaling_page.duration, 1.234, "1.23 s"),
        (scaling_page.duration, 7100, "118 min"),
        (scaling_page.duration, 7200, "2.00 h"),
        (scaling_page.duration, 1e6, "12 days"),
    ],
)
def test_numbers_have_units(show: Any, number: float, text: str) -> None:
    assert show(number) == text


# --- the proxy that it is measured with ------------------------------------------------------------------------------


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def _served() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_requests_are_counted_and_not_their_bodies() -> None:
    with _served() as host, TcpProxy(host) as proxy:
        connection = http.client.HTTPConnection(proxy.host)
        for body in (b"", b"x" * 100_000, b"GET / HTTP/1.1"):
            connection.request("PUT", "/", body)
            assert connection.getresponse().read() == b""
        connection.close()
        assert proxy.connections == 1
        # A short body that looks like a request comes behind its head, or may be taken for one.
        assert 3 <= proxy.requests <= 4


# --- the first ten minutes -------------------------------------------------------------------------------------------


def test_the_commands_of_the_transcript_exist_and_parse() -> None:
    page = transcript.PAGE.read_text()
    found = transcript.commands(page)
    shown = [command for part in transcript.PARTS for command in part.commands if command.startswith("casstore")]
    assert len(found) == len(shown), "run: python -m tests.transcript"
    root: click.Group = import_module("casstore.cli.main").main
    wrong = []
    for words in found:
        outer = click.Context(root, info_name="casstore", **root.context_settings)  # click keeps what -h is
        args = root.make_parser(outer).parse_args(words[1:])[1]
        if not args:
            continue
        verb, *rest = args
        command = root.get_command(outer, verb)
        if command is None:
            wrong.append(verb)
        else:
            # An option that is not there raises.
            command.make_parser(click.Context(command, info_name=verb, parent=outer)).parse_args(rest)
    assert wrong == ["creat"]
    assert "did you mean create?" in page
