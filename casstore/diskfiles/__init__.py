"""The files of a disk, without mounting it: what is there, what is in them, and copies of them on this machine.

Paths are bytes and begin at the disk's root, whether they say so or not. Symlinks lead to places on the disk only.

listing     what is there, and the bytes of one file
copying     a file or a directory, copied to a place on this machine
folders     the directories of such a copy
tarring     the same as a tar archive
tally       what was copied
"""

from casstore.diskfiles.copying import copy_out
from casstore.diskfiles.listing import FileEntry, digest_file, list_files, read_file
from casstore.diskfiles.tally import CopiedOut, Skipped
from casstore.diskfiles.tarring import tar_out
from casstore.filesystem.inode import Kind
from casstore.filesystem.paths import clean_path

__all__ = [
    "CopiedOut",
    "FileEntry",
    "Kind",
    "Skipped",
    "clean_path",
    "copy_out",
    "digest_file",
    "list_files",
    "read_file",
    "tar_out",
]
