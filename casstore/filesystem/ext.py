"""The files of ext2, ext3 and ext4: what is where, and what is in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from casstore.disk import filesystem_type
from casstore.errors import NotFound, UnreadableFilesystem
from casstore.filesystem import journal, superblock
from casstore.filesystem.bounds import Bounds, Budget
from casstore.filesystem.directory import Entry, inline_records, records
from casstore.filesystem.inode import LONGEST_LINK, Kind, Node, parse_inode
from casstore.filesystem.journal import Moved
from casstore.filesystem.mapping import Run, by_blocks, by_extents
from casstore.filesystem.reader import DiskReader
from casstore.filesystem.superblock import ROOT_INODE, Superblock

_KEPT_BLOCKS: Final = 64  # of metadata; at most 4 MiB
_MOST_LINKS: Final = 40  # on the way to one file, as in the kernel


class Found(NamedTuple):
    """A name somewhere below the root."""

    path: bytes
    """From the root, with "/" in front."""
    entry: Entry


class ExtFilesystem:
    """A file system on a disk, as it would be mounted now. Not for several threads at once.

    Whatever is asked raises UnreadableFilesystem when the file system is damaged there, or the bounds are exceeded, and
    as the reader does when the disk cannot be read.
    """

    def __init__(self, reader: DiskReader, *, subject: str, bounds: Bounds | None = None) -> None:
        """Look at the superblock, and at the journal where it is needed.

        Raises:
            UnreadableFilesystem: it is another file system, or damaged.
        """
        self._reader, self._subject = reader, subject
        self._budget = Budget(bounds or Bounds(), subject)
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._moved: dict[int, Moved] = {}  # with the block of the file system that it is in now
        self._superblock = self._read_superblock()
        if self._superblock.needs_recovery:
            self._replay()

    # --- files -------------------------------------------------------------------------------------------------------

    @property
    def root(self) -> Node:
        """The directory that all paths begin at."""
        root = self.node(ROOT_INODE)
        if root.kind is not Kind.DIRECTORY:
            raise self._damaged("a root directory", root.kind.name)
        return root

    def node(self, inode: int) -> Node:
        """The file with a number, as an Entry has it."""
        own = self._superblock
        if not 1 <= inode <= own.inodes:
            raise self._damaged(f"an inode of 1 to {own.inodes}", str(inode))
        group, index = divmod(inode - 1, own.inodes_per_group)
        at = own.descriptor_at(group)
        block, within = divmod(at, own.block_size)
        descriptor = self._metadata(block)[within : within + own.descriptor_size]
        place = index * own.inode_size
        block = own.inode_table(descriptor) + place // own.block_size
        within = place % own.block_size
        return parse_inode(inode, self._metadata(block)[within : within + own.inode_size], own)

    def entries(self, directory: Node) -> Iterator[Entry]:
        """The names in a directory, in its own order. There are none to read in one that is encrypted."""
        subject = f"{self._subject}: directory {directory.inode}"
        if directory.kind is not Kind.DIRECTORY:
            raise NotFound(f"{subject}: expected a directory, got {directory.kind.name}")
        if directory.is_encrypted:
            return
        has_filetype = self._superblock.has_filetype
        if directory.inline is not None:
            for entry in inline_records(directory.inline, subject, has_filetype=has_filetype):
                self._budget.entry()
                yield entry
            return
        for offset in range(0, directory.size, self._superblock.block_size):
            block = self.read(directory, offset, self._superblock.block_size)
            if len(block) % self._superblock.block_size:
                raise self._damaged("directories of whole blocks", f"{directory.size} bytes of {directory.inode}")
            if any(block):  # a hole is no damage
                for entry in records(block, subject, has_filetype=has_filetype):
                    self._budget.entry()
                    yield entry

    def read(self, node: Node, offset: int, length: int) -> bytes:
        """At most `length` bytes of a file's content from `offset`; fewer only at its end. Holes are zeros."""
        if node.is_encrypted:
            raise UnreadableFilesystem(f"{self._subject}: inode {node.inode}: expected content, got what is encrypted")
        end = min(offset + length, node.size)
        if offset >= end:
            return b""
        if node.inline is not None:
            return node.inline[offset:end]
        size, parts, at = self._superblock.block_size, [], offset
        while at < end:
            block, skip = divmod(at, size)
            run = self._run(node, block)
            part = min(end - at, run.length * size - skip)
            if run.start is None:
                self._budget.read(part)
                parts.append(bytes(part))
            else:
                count = -(-(skip + part) // size)
                parts.append(self._blocks(run.start, count)[skip : skip + part])
            at += part
        return b"".join(parts)

    def readlink(self, node: Node) -> bytes:
        """The target of a symlink: bytes that may say anything."""
        if node.kind is not Kind.SYMLINK or not 0 < node.size < LONGEST_LINK:
            raise self._damaged("a symlink", f"inode {node.inode}, a {node.kind.name} of {node.size} bytes")
        return self.read(node, 0, node.size)

    # --- paths -------------------------------------------------------------------------------------------------------

    def find(self, path: bytes, *, follow: bool = True) -> Node:
        """The file at a path from the root; symlinks lead to places below the root only, also the last one if wanted.

        Raises:
            NotFound: there is none.
        """
        way, left, links = [self.root], _parts(path), 0
        while left:
            part = left.pop()
            if part == b"..":
                way = way[:1] if len(way) == 1 else way[:-1]
                continue
            node = self._child(way[-1], part, path)
            if node.kind is Kind.SYMLINK and (follow or left):
                links += 1
                target = self.readlink(node)
                if links > _MOST_LINKS:
                    raise NotFound(f"{self._subject}: {ascii(path)}: expected a file, got a ring of symlinks")
                left += _parts(target)
                way = way[:1] if target.startswith(b"/") else way
            else:
                way.append(node)
        return way[-1]

    def walk(
        self,
        *,
        enter: Callable[[bytes], bool] = lambda _: True,
        unreadable: Callable[[UnreadableFilesystem], None] | None = None,
    ) -> Iterator[Found]:
        """All names below the root, a directory before what is in it, but for what is in directories whose path
        `enter` does not want. With `unreadable` a directory that cannot be read is told to it, and passed over.
        """
        entered = {ROOT_INODE}
        stack = [(b"", self._checked(self.root, unreadable))]
        while stack:
            path, entries = stack[-1]
            entry = next(entries, None)
            if entry is None:
                stack.pop()
                continue
            found = Found(path + b"/" + entry.name, entry)
            yield found
            if entry.kind not in (Kind.DIRECTORY, None) or not enter(found.path):
                continue
            try:
                node = self.node(entry.inode)
                if node.kind is Kind.DIRECTORY:
                    self._enter(node, entered, len(stack))
                    stack.append((found.path, self._checked(node, unreadable)))
            except UnreadableFilesystem as error:
                if unreadable is None:
                    raise
                unreadable(error)

    def _enter(self, directory: Node, entered: set[int], depth: int) -> None:
        if directory.inode in entered:
            raise self._damaged("one name for every directory", f"several for inode {directory.inode}")
        self._budget.directory(depth)
        entered.add(directory.inode)

    def _checked(self, directory: Node, unreadable: Callable[[UnreadableFilesystem], None] | None) -> Iterator[Entry]:
        try:
            yield from self.entries(directory)
        except UnreadableFilesystem as error:
            if unreadable is None:
                raise
            unreadable(error)

    def _child(self, directory: Node, name: bytes, path: bytes) -> Node:
        if directory.kind is Kind.DIRECTORY:
            for entry in self.entries(directory):
                if entry.name == name:
                    return self.node(entry.inode)
        raise NotFound(f"{self._subject}: expected a file at {ascii(path)}, got none")

    # --- blocks ------------------------------------------------------------------------------------------------------

    def _run(self, node: Node, block: int) -> Run:
        subject = f"{self._subject}: inode {node.inode}"
        if node.has_extents:
            return by_extents(node.mapping, block, self._metadata, subject)
        return by_blocks(node.mapping, block, self._metadata, subject, block_size=self._superblock.block_size)

    def _metadata(self, block: int) -> bytes:
        """One block, kept for a while."""
        kept = self._kept.get(block)
        if kept is None:
            kept = self._kept[block] = self._blocks(block, 1)
            if len(self._kept) > _KEPT_BLOCKS:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(block)
        return kept

    def _blocks(self, start: int, count: int) -> bytes:
        """Blocks that follow each other, each as the journal has it last."""
        own = self._superblock
        if not 0 <= start <= start + count <= own.blocks:
            raise self._damaged(f"blocks below {own.blocks}", f"{start} to {start + count}")
        if self._moved:
            touched = [block for block in range(start, start + count) if block in self._moved]
            if touched:
                data = bytearray(self._read_at(start * own.block_size, count * own.block_size))
                for block in touched:
                    at = (block - start) * own.block_size
                    data[at : at + own.block_size] = self._from_journal(self._moved[block])
                return bytes(data)
        return self._read_at(start * own.block_size, count * own.block_size)

    def _read_at(self, offset: int, length: int) -> bytes:
        if offset + length > self._reader.size:
            raise self._damaged(f"a disk of {offset + length} bytes or more", f"{self._reader.size}: it was truncated")
        self._budget.read(length)
        return self._reader.read_at(offset, length)

    # --- journal -----------------------------------------------------------------------------------------------------

    def _read_superblock(self) -> Superblock:
        if self._reader.size < superblock.OFFSET + superblock.SIZE:
            raise self._damaged("a file system", f"a disk of {self._reader.size} bytes")
        head = self._reader.read_at(0, superblock.OFFSET + superblock.SIZE)
        if filesystem_type(head) != "ext4":
            raise UnreadableFilesystem(
                f"{self._subject}: expected ext2, ext3 or ext4, got {superblock.other_kind(head)}"
            )
        return Superblock.parse(head[superblock.OFFSET :], subject=self._subject)

    def _replay(self) -> None:
        own = self._superblock
        if own.has_journal_device or not own.journal_inode:
            raise self._damaged("a journal on this disk", "one elsewhere")
        node = self.node(own.journal_inode)
        moved = journal.replay(
            lambda block: self.read(node, block * own.block_size, own.block_size),
            blocks=node.size // own.block_size,
            block_size=own.block_size,
            subject=self._subject,
        )
        if moved:
            # All looked up before the first of them counts: one may belong to the journal's own extents.
            self._moved = {
                block: Moved(self._journal_block(node, at), escaped) for block, (at, escaped) in moved.items()
            }
            self._kept.clear()
            raw = self._blocks(superblock.OFFSET // own.block_size, 1)
            at = superblock.OFFSET % own.block_size
            self._superblock = Superblock.parse(raw[at : at + superblock.SIZE], subject=self._subject)

    def _journal_block(self, node: Node, at: int) -> int:
        run = self._run(node, at)
        if run.start is None:
            raise self._damaged("a journal without holes", f"one at its block {at}")
        return run.start

    def _from_journal(self, moved: Moved) -> bytes:
        size = self._superblock.block_size
        if moved.at >= self._superblock.blocks:
            raise self._damaged(f"blocks below {self._superblock.blocks}", str(moved.at))
        data = self._read_at(moved.at * size, size)
        return journal.MAGIC + data[4:] if moved.escaped else data

    def _damaged(self, expected: str, got: str) -> UnreadableFilesystem:
        return UnreadableFilesystem(f"{self._subject}: expected {expected}, got {got}; the file system is damaged")


def _parts(path: bytes) -> list[bytes]:
    """The names in a path, last one first."""
    return [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
