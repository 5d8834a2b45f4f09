"""What differs between two snapshots: on their disks, and in the file systems on these.

chunks      which chunks of two disks are not the same ones: maps and directories tell, no content is read
disks       which blocks of two disks differ: only what lies in such chunks is decoded and compared
blockmap    the same as some cells of equal size, for a picture
pairing     two snapshots read as one, where they share packs
sharing     two disks read as one, where they are alike
content     whether a file has the same content on both
files       which files were added, removed and changed
"""
