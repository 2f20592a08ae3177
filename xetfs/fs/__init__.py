"""A repo as a directory, through FUSE.

operations.py  answers the kernel
guard.py       sees that every answer is a value or an errno, in time
errno.py       the table of errors
inodes.py      between what the kernel holds (inode numbers, handles, bytes) and ours
xattrs.py      extended attributes, and which of them are listed
mount.py       mounts, serves, unmounts
mountpoint.py  judges directories and mounts from outside; the command line uses it before anything else is loaded
tuning.py      asks the kernel for larger requests

A process can have one pyfuse3 session at a time. mountpoint.py and tuning.py need only the standard library.
"""
