"""From a byte range of a file to its bytes: what is at hand is answered at once, the rest is planned, fetched, decoded and
checked.

file.py        FileReader: one opening of a file; the only thing the fronts see
content.py     FileContent: a file's bytes, shared by all who may read them
access.py      with which right a content is read
filemap.py     which chunk of which xorb stands where in a file, as far as it is known
prefetch.py    how far ahead of a reader to load (pure)
planner.py     from a reconstruction to the fetches it needs (pure)
fetcher.py     one fetch per block, however many wait; decoding in threads
sources.py     how a window of a Xet, LFS or git file is loaded
shelf.py       decoded blocks in memory, their way into the store, and the store behind them
budget.py      one limit on the bytes that all of this holds
flights.py     shared work that belongs to the engine and ends with its last waiter
"""
