"""Blocks and records kept on this machine: the chunk store.

api.py         what a store offers: Block, ChunkStore, StoreStatistics
blocks.py      a block in memory, a block in a file, and the form of that file
handles.py     which blocks are open: a bounded set, least recently used first out
directory.py   the cache directory: made private, refused when somebody else could write to it
values.py      what a row of the index may have as its value, and the value files
schema.py      the index's database: made by diskcache, refused when anything else is in it
index.py       the index: lookups, order of use, eviction
health.py      when the disk fails, and when it is tried again
sweep.py       removing files that no row of the index names
records.py     the form of a record's value
opening.py     opening the index, setting aside one that cannot be used
space.py       how much of the disk may be taken
backing.py     the index as it is now, the budget, and what is done when the disk fails
disk.py        DiskStore
memory.py      MemoryStore, for tests and for machines without a disk to spare
"""
