"""The files of ext2, ext3 and ext4: what is where, and what is in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from operator import attrgetter
from typing import Final, NamedTuple

from casstore.disk import filesystem_type
from casstore.errors import NotFound, UnreadableFilesystem
from casstore.filesystem import journal, superblock
from casstore.filesystem.bounds import Bounds, Budget
from casstore.filesystem.directory import Entry, inline_records, records
from casstore.filesystem.inode import LONGEST_LINK, Kind, Node, parse_inode
from casstore.filesystem.journal import Moved
from casstore.filesystem.mapping import Run, by_blocks, by_extents
from casstore.filesystem.paths import parts_of, quoted
from casstore.filesystem.reader import DiskReader
from casstore.filesystem.superblock import ROOT_INODE, Superblock
from casstore.spec import MIB

_KEPT_BLOCKS: Final = 64  # of metadata; at most 4 MiB
_KEPT_NAMES, _KEPT_DIRECTORIES = 1 << 18, 256  # that were searched
_HAVE_CONTENT: Final = {Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK}
_PART: Final = MIB  # bytes of content at a time
_SORTED: Final = 1 << 20  # names of a directory at a time
_ZEROS: Final = bytes(_PART)
_MOST_LINKS: Final = 40  # on the way to one file, as in the kernel


class Found(NamedTuple):
    """A name somewhere below the root."""

    path: bytes
    """From the root, with "/" in front."""
    entry: Entry


class FileExtent(NamedTuple):
    """Bytes of a file that follow each other on the disk."""

    offset: int
    """In the file."""
    disk: int | None
    """On the disk; None where they are not there as they are: they lie in the inode, or changed in the journal."""
    length: int
    """At least 1."""


class ExtFilesystem:
    """A file system on a disk, as it would be mounted now. Not for several threads at once. Texts call it `subject`.

    Whatever is asked raises UnreadableFilesystem when the file system is damaged there, or the bounds are exceeded, and
    as the reader does when the disk cannot be read.
    """

    def __init__(self, reader: DiskReader, *, subject: str, bounds: Bounds | None = None) -> None:
        """Look at the superblock, and at the journal where it is needed. The bounds are those for a disk of its size,
        unless others are given.

        Raises:
            UnreadableFilesystem: it is another file system, or damaged.
        """
        self.subject: str = subject
        self._reader = reader
        self._budget = Budget(bounds or Bounds.of_disk(reader.size), subject)
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._searched: OrderedDict[int, _Names] = OrderedDict()
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
            raise self._damaged("a root directory", str(root.kind))
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
        subject = f"{self.subject}: directory {directory.inode}"
        if directory.kind is not Kind.DIRECTORY:
            raise NotFound(f"{subject}: expected a directory, got a {directory.kind}")
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

    def in_order(self, directory: Node) -> Iterator[Entry]:
        """The names in a directory in the order of their bytes; in a very large one those of each million."""
        entries = self.entries(directory)
        while part := list(islice(entries, _SORTED)):
            yield from sorted(part, key=attrgetter("name"))

    def read(self, node: Node, offset: int, length: int) -> bytes:
        """At most `length` bytes of a file's content from `offset`; fewer only at its end. Holes are zeros."""
        if node.is_encrypted:
            raise self._encrypted(node)
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

    def extents(self, node: Node) -> Iterator[FileExtent]:
        """Where the content of a file, directory or long symlink lies, in order; what is between is a hole, and so is
        space that was never written. All of it is before the end of the file. One that is encrypted has extents, too.
        """
        if node.inline is not None:
            if node.inline:
                yield FileExtent(0, None, len(node.inline))
            return
        if node.kind not in _HAVE_CONTENT:
            return
        size = self._superblock.block_size
        held, block, end = None, 0, -(-node.size // size)
        while block < end:
            self._budget.extent()
            run = self._run(node, block)
            count = min(run.length, end - block)
            for piece in self._pieces(run.start, block, count, node.size) if run.start is not None else ():
                if held is not None and _follows(held, piece):
                    held = held._replace(length=held.length + piece.length)
                    continue
                if held is not None:
                    yield held
                held = piece
            block += count
        if held is not None:
            yield held

    def content(self, node: Node) -> Iterator[bytes]:
        """All bytes of a file, in parts of at most 1 MiB. Holes are zeros, and cost no reading."""
        if node.is_encrypted:
            raise self._encrypted(node)
        at = 0
        for offset, _, length in self.extents(node):
            yield from self._zeros(offset - at)
            at = offset + length
            for start in range(offset, at, _PART):
                yield self.read(node, start, min(_PART, at - start))
        yield from self._zeros(node.size - at)

    def readlink(self, node: Node) -> bytes:
        """The target of a symlink: bytes that may say anything."""
        if node.kind is not Kind.SYMLINK or not 0 < node.size < LONGEST_LINK:
            raise self._damaged("a symlink", f"inode {node.inode}, a {node.kind} of {node.size} bytes")
        return self.read(node, 0, node.size)

    # --- paths -------------------------------------------------------------------------------------------------------

    def find(self, path: bytes, *, follow: bool = True) -> Node:
        """The file at a path from the root; symlinks lead to places below the root only, also the last one if wanted.

        Raises:
            NotFound: there is none.
        """
        way, left, links = [self.root], parts_of(path)[::-1], 0
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
                    raise NotFound(f"{self.subject}: {quoted(path)}: expected a file, got a ring of symlinks")
                left += parts_of(target)[::-1]
                way = way[:1] if target.startswith(b"/") else way
            else:
                way.append(node)
        return way[-1]

    def walk(
        self,
        top: Node | None = None,
        *,
        enter: Callable[[bytes], bool] = lambda _: True,
        unreadable: Callable[[UnreadableFilesystem], None] | None = None,
        ordered: bool = False,
    ) -> Iterator[Found]:
        """All names below the directory `top`, the root if none is given; a directory before what is in it, but for
        what is in directories whose path `enter` does not want. Paths begin at `top`. With `unreadable` a directory
        that cannot be read is told to it, and passed over. The names of each directory are `ordered` as `in_order`
        does, or come as they lie.
        """
        top = self.root if top is None else top
        entered = {top.inode}
        stack = [(b"", self._checked(top, unreadable, ordered=ordered))]
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
                    stack.append((found.path, self._checked(node, unreadable, ordered=ordered)))
            except UnreadableFilesystem as error:
                if unreadable is None:
                    raise
                unreadable(error)

    def _enter(self, directory: Node, entered: set[int], depth: int) -> None:
        if directory.inode in entered:
            raise self._damaged("one name for every directory", f"several for inode {directory.inode}")
        self._budget.directory(depth)
        entered.add(directory.inode)

    def _checked(
        self, directory: Node, unreadable: Callable[[UnreadableFilesystem], None] | None, *, ordered: bool
    ) -> Iterator[Entry]:
        try:
            yield from self.in_order(directory) if ordered else self.entries(directory)
        except UnreadableFilesystem as error:
            if unreadable is None:
                raise
            unreadable(error)

    def _child(self, directory: Node, name: bytes, path: bytes) -> Node:
        if directory.kind is Kind.DIRECTORY:
            names = self._searched.pop(directory.inode, None) or _Names(self.entries(directory))
            inode = names.find(name)
            self._searched[directory.inode] = names
            while len(self._searched) > _KEPT_DIRECTORIES or sum(map(len, self._searched.values())) > _KEPT_NAMES:
                self._searched.popitem(last=False)
            if inode is not None:
                return self.node(inode)
        raise NotFound(f"{self.subject}: expected a file at {quoted(path)}, got none")

    # --- blocks ------------------------------------------------------------------------------------------------------

    def _run(self, node: Node, block: int) -> Run:
        subject = f"{self.subject}: inode {node.inode}"
        if node.has_extents:
            return by_extents(node.mapping, block, self._metadata, subject)
        return by_blocks(node.mapping, block, self._metadata, subject, block_size=self._superblock.block_size)

    def _pieces(self, start: int, block: int, count: int, end: int) -> Iterator[FileExtent]:
        """A run of a file from its block `block` on, cut where the journal has blocks of it; nothing from `end` on."""
        own, size = self._superblock, self._superblock.block_size
        if not 0 <= start <= start + count <= own.blocks:
            raise self._damaged(f"blocks below {own.blocks}", f"{start} to {start + count}")
        first = 0
        while first < count:
            moved = self._moved.get(start + first)
            last = first + 1
            if moved is None:
                last = count if not self._moved else self._until_moved(start, first, count)
                place: int | None = (start + first) * size
            else:
                place = None if moved.escaped else moved.at * size
            at = (block + first) * size
            yield FileExtent(at, place, min((last - first) * size, end - at))
            first = last

    def _until_moved(self, start: int, first: int, count: int) -> int:
        """How far from its block `first` on a run is where it should be."""
        return next((n for n in range(first + 1, count) if start + n in self._moved), count)

    def _zeros(self, length: int) -> Iterator[bytes]:
        """A hole, in parts."""
        while length > 0:
            part = min(length, _PART)
            self._budget.hole(part)
            yield _ZEROS if part == _PART else _ZEROS[:part]
            length -= part

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
                f"{self.subject}: expected ext2, ext3 or ext4, got {superblock.other_kind(head)}"
            )
        return Superblock.parse(head[superblock.OFFSET :], subject=self.subject)

    def _replay(self) -> None:
        own = self._superblock
        if own.has_journal_device or not own.journal_inode:
            raise self._damaged("a journal on this disk", "one elsewhere")
        node = self.node(own.journal_inode)
        moved = journal.replay(
            lambda block: self.read(node, block * own.block_size, own.block_size),
            blocks=node.size // own.block_size,
            block_size=own.block_size,
            subject=self.subject,
        )
        if moved:
            # All looked up before the first of them counts: one may belong to the journal's own extents.
            self._moved = {
                block: Moved(self._journal_block(node, at), escaped) for block, (at, escaped) in moved.items()
            }
            self._kept.clear()
            raw = self._blocks(superblock.OFFSET // own.block_size, 1)
            at = superblock.OFFSET % own.block_size
            self._superblock = Superblock.parse(raw[at : at + superblock.SIZE], subject=self.subject)

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

    def _encrypted(self, node: Node) -> UnreadableFilesystem:
        return UnreadableFilesystem(
            f"{self.subject}: inode {node.inode}: expected content, got what the file system has encrypted; restore the"
            " disk, mount it, and unlock it there"
        )

    def _damaged(self, expected: str, got: str) -> UnreadableFilesystem:
        return UnreadableFilesystem(f"{self.subject}: expected {expected}, got {got}; the file system is damaged")


class _Names:
    """The names of a directory, read no further than they were searched for; of several equal ones the first counts."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self._inodes: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._inodes)

    def find(self, name: bytes) -> int | None:
        """The inode of a name; None where there is none. After an error it must not be asked again."""
        inode = self._inodes.get(name)
        if inode is None:
            for entry in self._entries:
                if len(self._inodes) <= _KEPT_NAMES:  # one more than are kept: then none are
                    self._inodes.setdefault(entry.name, entry.inode)
                if entry.name == name:
                    return entry.inode
        return inode


def _follows(one: FileExtent, other: FileExtent) -> bool:
    """Whether bytes follow others in the file and on the disk."""
    if one.disk is None or other.disk is None or one.offset + one.length != other.offset:
        return False
    return one.disk + one.length == other.disk
