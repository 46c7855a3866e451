"""Peers: programs of their own that rebuild one projection, the subscriptions, with another project's code.

Each gets its own event store, filled through its own interface with the same events, and writes into a table like ours.
"""
