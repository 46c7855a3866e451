"""A proof that anyone can run: clients append, project and read during many rebuilds, some of them killed half-way.

``make prove`` or ``python -m tools.prove [--engine mysql] [--contract detached] [--clients rba] [--rebuilds 20]``.
After each rebuild, the proof compares every table with an independent computation from the event store.
"""
