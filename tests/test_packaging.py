"""What is published works: a wheel built from the sdist, installed where the checkout is not."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import casstore
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


def test_sdist_holds_what_a_packager_needs(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in ("Makefile", "README.md", "LICENSE", "schemas/index.schema.json", "tests/conftest.py", ".ci/run"):
        assert wanted in names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".git/", "site/"))]


def test_wheel_holds_the_package_and_its_schemas(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"casstore", f"casstore-{casstore.__version__}.dist-info"}
    schemas = {path.name for path in (ROOT / "schemas").glob("*.json")}
    assert {Path(name).name for name in names if name.startswith("casstore/schemas/")} == schemas
    assert "casstore/py.typed" in names


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
