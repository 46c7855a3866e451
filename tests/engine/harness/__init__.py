"""What the tests of the engine share. Fixtures are in ``tests/engine/conftest.py``, databases' own in ``tests/conftest.py``.

To write a test, begin with these:

* :mod:`.shop`: the usual application: rows, projectors, tables, events, and what its tables must hold
* :mod:`.specs`: its spec, and a run of it; :mod:`.driver`: the steps of a run, up to one of them
* :mod:`.databases`: kinds of databases for ``parametrize``, and statements sent to one
* :mod:`.findings`: what a plan has to say against a database
* :mod:`.clients`: applications at work beside a rebuild; :mod:`.writers`: those that project later
* :mod:`.seams`: moments within a step at which a test does something; :mod:`.faults`: statements that fail, connections that are
  cut; :mod:`.sweep`: a fault at each statement of each step; :mod:`.clocks`: time as a test wants it

Other applications, each for a subject of its own: :mod:`.shop_sets` (SQL), :mod:`.pyshop` and :mod:`.foreign` (event stores of
others), :mod:`.tally` and :mod:`.decoders` (stores of any types), :mod:`.values_shop` (values that depend on a session),
:mod:`.marked` (secrets), :mod:`.things` (values of each type), :mod:`.programs`, :mod:`.fidelity` and :mod:`.fidelity_sqlite` (names and schemas of every kind),
:mod:`.chains` (foreign keys), :mod:`.changes` (what people do to live tables), :mod:`.nodes`, :mod:`.items`. :mod:`.session_docs`
reads a page of the manual.
"""
