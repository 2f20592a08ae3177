"""The benchmark behind scripts/bench: xetfs beside what people use instead, in one run, on one machine, against one server.

figures.py    numbers with a spread, targets, verdicts                         pure
curves.py     costs by size, and whether they grow                             pure
records.py    the hub's log: requests, bytes, round trips                      pure
report.py     tables and JSON                                                  pure
headlines.py  the few figures of the README                                    pure
picture.py    bars of figures against their targets, as SVG                    pure
curve_picture.py   curves side by side, as SVG                                 pure
stacks.py     collapsed stacks: the top entries and a flame graph              pure
processes.py  CPU time, memory and page faults from the kernel
quiet.py      whether other programs use the cores
data.py       test data: generated once, uploaded by the real client, kept
scale_data.py      repos, files and shards of many sizes, made in the hub's directory
hub.py        the test hub in a process of its own
lab.py        mounts, readers in fresh processes, and what a pass cost
readers.py    the programs that read, each in a process of its own
scenarios.py, scenarios_*.py   what is measured, and which figures come out
profile.py    a profile of the daemon during a scenario
engine_read.py   reads without a mount, to count instructions
store_costs.py     a store with many blocks, and what its operations cost
counting.py   counts of one version
compare.py    counts of this checkout beside those of another revision
outcome.py    the results, and where they are written
command.py    arguments and order
"""
