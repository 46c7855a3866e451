"""A proof that anyone can run: clients append, project and read through many rebuilds, some of them killed half-way.

``make prove`` or ``python -m tools.prove [--engine mysql] [--contract detached] [--clients rba] [--rebuilds 20]``. After each
rebuild every table is held against an independent recomputation from the event store.
"""
