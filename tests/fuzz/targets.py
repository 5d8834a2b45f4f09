"""All targets."""

from __future__ import annotations

from tests.fuzz import binary, credentials, documents, filesystem, lines, trust
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for group in (documents, binary, lines, credentials, trust, filesystem)
    for target in group.TARGETS
}
