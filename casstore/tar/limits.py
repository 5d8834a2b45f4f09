"""How much a tar archive may ask of its reader. All of it is small beside the memory that a capture takes."""

from __future__ import annotations

from typing import Final

from casstore.spec import KIB, MIB

BLOCK: Final = 512
"""Bytes of a header, and what contents are padded to."""
MAX_MEMBERS: Final = 250_000
"""A layout with all blobs that a graph may have (survey.MAX_BLOBS) has fewer. To know a name again takes 100 bytes."""
MAX_NAME: Final = 1024
"""Bytes of a name; microsandbox's longest are 350."""
MAX_HEADERS: Final = MIB
"""Bytes of PAX records or of a GNU long name; PAX sparse maps of 40,000 ranges fit."""
MAX_ALL_HEADERS: Final = 32 * MIB
"""Bytes of all PAX records and long names of an archive: they take a second for each MiB, and compress to nothing."""
MAX_RANGES: Final = 2_000_000
"""Ranges of a sparse member, 16 bytes each in memory: more than a disk of 16 GiB has with every second block unused."""
MAX_ALL_RANGES: Final = 8_000_000
"""Ranges of all sparse members of an archive: they, too, take a minute, and compress to nothing."""
MAX_PADDING: Final = 16 * MIB
"""Zeros after the end of an archive: tar pads to its record size, which people choose."""
MAX_WINDOW: Final = 64 * MIB
"""Bytes that a zstd frame may want to look back. Level 19 takes 8 MiB; only --long and --ultra take more."""
MAX_RATIO: Final = 100
"""How many times the bytes of an archive all blobs in it may have together. They are compressed themselves: what grows
so much is a bomb, or a disk that was put into an archive as it is."""
FREE_OF_RATIO: Final = 256 * MIB
"""Bytes of blobs that any archive may have."""
READ: Final = 256 * KIB
"""Bytes taken from the input at a time."""
