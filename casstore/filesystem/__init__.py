"""The files of a disk, read-only: ext2, ext3 and ext4, without mounting them, and without believing them.

reader      where the bytes come from: whatever has a size and can be read at an offset
bounds      how much work a disk may cost
superblock  what kind of file system it is, and where its inodes are
inode       one file: its kind, its size, its owner
mapping     where on the disk the bytes of a file are
journal     what a crash left behind: written, but not yet in its place
directory   names
ext         all of it together: paths, content, links

A disk may come from anybody. Whatever it says is checked where it is used; what does not fit is `UnreadableFilesystem`,
and so is what goes beyond the bounds. No loop on the disk can be one here: the depth of a tree of extents goes down
with every step, and a directory is entered once. Names are bytes; nothing becomes a path on this machine.

Metadata checksums are not verified: of a stored disk every byte has been, and on others the kernel would not know
better than to refuse.
"""
