"""Helpers of the engine's tests.

Their fixtures are in ``tests/engine/conftest.py``, those of the databases in ``tests/conftest.py``.

To write a test, begin with these:

* :mod:`.shop`: the usual application: rows, projectors, tables, events, and the expected content of its tables
* :mod:`.specs`: its spec, and a run of it; :mod:`.driver`: the steps of a run, up to a given one
* :mod:`.databases`: kinds of databases for ``parametrize``, and statements sent to one
* :mod:`.findings`: the findings of a plan
* :mod:`.clients`: applications at work beside a rebuild; :mod:`.writers`: applications that project later
* :mod:`.seams`: moments within a step at which a test can act; :mod:`.faults`: failing statements and cut connections;
  :mod:`.sweep`: a fault at each statement of each step; :mod:`.clocks`: clocks that a test controls

Other applications, each for one subject: :mod:`.shop_sets` (SQL), :mod:`.pyshop` and :mod:`.foreign` (event stores of
other libraries), :mod:`.tally` and :mod:`.decoders` (stores with any types), :mod:`.values_shop` (values that depend on
a session), :mod:`.marked` (secrets), :mod:`.things` (values of each type), :mod:`.programs`, :mod:`.fidelity` and
:mod:`.fidelity_sqlite` (names and schemas of every kind), :mod:`.chains` (foreign keys), :mod:`.changes` (changes of
live tables), :mod:`.nodes`, :mod:`.items`. :mod:`.session_docs` reads a page of the manual.
"""
