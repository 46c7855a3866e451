"""Operators: each reads what it was given, calls one verb of the engine, and pushes a small XCom."""
