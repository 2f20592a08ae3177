"""Blocks and records kept on this machine: the chunk store.

api.py         what a store offers: Block, ChunkStore, StoreStatistics
blocks.py      a block in memory, a block in a file, and the form of that file
handles.py     which blocks are open: a bounded set, least recently used first out
directory.py   the cache directory: made private, refused when somebody else could write to it
rawdisk.py     diskcache's Disk without any way to pickle
index.py       the index, budget and eviction: diskcache on SQLite, made safe against hostile rows
health.py      when the disk fails, and when it is tried again
sweep.py       removing files that no row of the index names
records.py     the form of a record's value
opening.py     opening the index, setting aside one that cannot be used
space.py       how much of the disk may be taken
backing.py     the index as it is now, the budget, and what is done when the disk fails
disk.py        DiskStore
memory.py      MemoryStore, for tests and for machines without a disk to spare
"""
