"""The benchmark behind scripts/bench: xetfs beside what people use instead, in one run, on one machine, against one server.

figures.py    numbers with a spread, targets, verdicts                         pure
curves.py     costs by size, and whether they grow                             pure
records.py    what the hub's log says: requests, bytes, round trips            pure
report.py     tables and JSON                                                  pure
headlines.py  the few figures of the README                                    pure
picture.py    bars of figures against their targets, as SVG                    pure
curve_picture.py   curves side by side, as SVG                                 pure
stacks.py     collapsed stacks: the top entries and a flame graph              pure
processes.py  CPU time, memory and page faults from the kernel
quiet.py      whether other programs have the cores
data.py       what is read: made once, uploaded by the real client, kept
scale_data.py      repos, files and shards of many sizes, made in the hub's directory
lab.py        the hub, mounts, readers in fresh processes, and their accounts
readers.py    the programs that read, each in a process of its own
scenarios.py, scenarios_*.py   what is measured, and what of it is a figure
profile.py    a profile of the daemon during a scenario
engine_read.py   reads without a mount, of which instructions are counted
store_costs.py     a store with many blocks, and what its operations cost
counting.py   what is counted of one version
compare.py    counted things of this checkout beside those of another revision
outcome.py    what came out, and where it is written
command.py    arguments and order
"""
