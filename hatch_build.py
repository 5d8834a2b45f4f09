"""Makes the manual pages, and puts them into the wheel: share/man/man1, where `man` finds what pipx installs."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface):  # type: ignore[type-arg]
    """The pages of `docs/generate_man.py`, for wheels that are installed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make them; an editable wheel, whose source changes, has none."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        write = runpy.run_path(str(Path(self.root, "docs", "generate_man.py")))["write"]
        write(self._pages)
        build_data["shared_data"] |= {
            str(page): f"share/man/man1/{page.name}" for page in sorted(self._pages.iterdir())
        }

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Take them away: they are in the wheel."""
        shutil.rmtree(self._pages, ignore_errors=True)

    @property
    def _pages(self) -> Path:
        return Path(self.directory, "man")
