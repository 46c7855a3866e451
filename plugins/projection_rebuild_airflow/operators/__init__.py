"""Operators: each reads its params, calls one verb of the engine, and pushes a small XCom."""
