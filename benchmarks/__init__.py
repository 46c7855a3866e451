"""How fast a replay is: ours, the seed's way, SQL by hand, what the database itself can do, and peers; ``make bench``.

Everything runs against durable servers that the bench starts itself, in interleaved rounds. The tables that each way leaves are
compared row for row with those of the hand-written SQL. Imports the product as its users do; nothing of the product imports it.
"""
