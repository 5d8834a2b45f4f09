"""What is published works: a wheel built from the sdist, installed where the checkout is not."""

from __future__ import annotations

import email.parser
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import click
import pytest

import casstore
from casstore.cli.main import main
from tests.support import disks

ROOT = Path(__file__).parents[1]


def _run(*command: str | Path, cwd: Path, **environ: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CASSTORE", "COV"))}
    done = subprocess.run(command, cwd=cwd, env=env | environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path) -> Path:
    """The bin folder of a virtual environment with the wheel; its dependencies are those of this interpreter."""
    env = dist / "env"
    _run(sys.executable, "-m", "venv", "--without-pip", env, cwd=dist)
    (wheel,) = dist.glob("*.whl")
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        env / "bin/python",
        "--quiet",
        "--disable-pip-version-check",
    ]
    _run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=dist)
    (packages,) = env.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched, but its own .pth files (the editable install) are not followed.
    Path(packages, "dependencies.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    return env / "bin"


@pytest.mark.needs("make")
def test_the_demo_installs_python_packages_alone(tmp_path: Path) -> None:
    """Whoever only wants to see it gets no browser, and no other tools of the tests."""
    plan = _run("make", "--dry-run", "demo", f"VENV={tmp_path}/none", f"PYTHON={sys.executable}", cwd=ROOT)
    assert "--editable . hypothesis" in plan
    assert re.findall(r"\.ci/.*", plan) == [".ci/install-peers.sh demo"]


def test_sdist_holds_what_a_packager_needs(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in ("Makefile", "README.md", "LICENSE", "schemas/index.schema.json", "tests/conftest.py", ".ci/run"):
        assert wanted in names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".git/", "site/"))]
    for wanted in (
        "CHANGELOG.md",
        "Containerfile",
        ".dockerignore",
        "docs/how-to/install.md",
        "docs/cookbook/mirror.py",
        "hatch_build.py",
    ):
        assert wanted in names


def test_wheel_holds_the_package_and_its_schemas(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    about = f"casstore-{casstore.__version__}"
    assert {name.partition("/")[0] for name in names} == {"casstore", f"{about}.dist-info", f"{about}.data"}
    pages = {name.removeprefix(f"{about}.data/data/share/man/man1/") for name in names if ".data/" in name}
    assert pages == {"casstore.1", *(f"casstore-{verb}.1" for verb in main.list_commands(click.Context(main)))}
    schemas = {path.name for path in (ROOT / "schemas").glob("*.json")}
    assert {Path(name).name for name in names if name.startswith("casstore/schemas/")} == schemas
    assert "casstore/py.typed" in names
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    assert not [name for name in names if "test" in name.lower() or "__pycache__" in name]


def test_the_same_sources_give_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (copy,) = tmp_path.iterdir()
    for path in [copy, *copy.glob("casstore/**/*")]:  # other times, and another umask
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(path.stat().st_mode & ~0o077)
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=copy)
    (first,), (second,) = dist.glob("*.whl"), tmp_path.glob("*.whl")
    assert _hashes(first) == _hashes(second)  # tells which file differs
    assert first.read_bytes() == second.read_bytes()


def _hashes(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def test_the_metadata_says_what_an_index_shows(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.parser.Parser().parsestr(archive.read(name).decode())
    assert metadata["Version"] == casstore.__version__
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / "README.md").read_text()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    pythons = [each for each in metadata.get_all("Classifier", []) if re.search(r":: 3\.\d+$", each)]
    assert pythons[0].endswith(":: 3.11"), "the oldest that Requires-Python lets in"
    assert {"cosign", "dev", "docs", "fuzz"} == set(metadata.get_all("Provides-Extra", []))


def test_the_version_stands_in_one_place() -> None:
    files = [*ROOT.glob("*.*"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("casstore/**/*.py"), ROOT / "Containerfile"]
    versions = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file()
        and re.search(rf'^\s*_*version_*\s*=\s*"{re.escape(casstore.__version__)}"', path.read_text(), re.MULTILINE)
    }
    assert versions == {"casstore/__init__.py"}


def test_the_changelog_begins_with_what_is_not_released() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    released = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)", heading) for heading in headings[1:]]
    assert all(released), "expected: ## [1.2.3] - 2026-01-31"
    versions = [tuple(map(int, match.groups()[:3])) for match in released if match]
    assert versions == sorted(versions, reverse=True)
    newest = ".".join(map(str, versions[0])) if versions else ""
    assert newest in {"", casstore.__version__}, "what was released last is not this code's version"
    kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert all(
        line.startswith(("- ", "  ", "#", "[")) or not line for line in text.split("## [Unreleased]")[1].splitlines()
    )


def test_the_recipe_of_the_container_copies_what_there_is() -> None:
    recipe = (ROOT / "Containerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", recipe, re.MULTILINE) for name in line.split()]
    assert {"pyproject.toml", "hatch_build.py", "casstore", "schemas", "README.md", "LICENSE"} <= set(copied)
    assert {f"!{name}" for name in copied} <= set((ROOT / ".dockerignore").read_text().splitlines())
    assert all((ROOT / name).exists() for name in copied)
    assert re.search(r"^USER 65532:65532$", recipe, re.MULTILINE)
    pythons = set(re.findall(r"^FROM \S+python:(3\.\d+)-slim", recipe, re.MULTILINE))
    assert len(pythons) == 1
    assert f'"Programming Language :: Python :: {pythons.pop()}"' in (ROOT / "pyproject.toml").read_text()


def test_installed_package_validates_against_its_schemas(installed: Path, tmp_path: Path) -> None:
    code = (
        "import casstore; from casstore.schema import validate\n"
        "validate({'imageLayoutVersion': '1.0.0'}, 'oci-layout', subject='oci-layout')\n"
        "print(casstore.__file__)"
    )
    where = _run(installed / "python", "-c", code, cwd=tmp_path).strip()
    assert Path(where).is_relative_to(installed.parent), "the checkout was used, not the wheel"


def test_installed_command_says_its_version(installed: Path, tmp_path: Path) -> None:
    assert casstore.__version__ in _run(installed / "casstore", "--version", cwd=tmp_path)


def test_installed_command_creates_and_restores(installed: Path, tmp_path: Path) -> None:
    disk, back, store = tmp_path / "disk", tmp_path / "back", str(tmp_path / "store")
    disks.unpack_fixture("base", disk)
    _run(installed / "casstore", "create", "base", "--disk", disk, cwd=tmp_path, CASSTORE_STORE=store)
    _run(installed / "casstore", "restore", "base", back, cwd=tmp_path, CASSTORE_STORE=store)
    assert disks.same_bytes(disk, back)
