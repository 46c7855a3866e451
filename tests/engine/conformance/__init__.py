"""What every database must do for the engine. The package ``contract`` has the cases, and each database inherits them here."""

from __future__ import annotations

import pytest

# Before anything imports the cases: they are in modules that pytest does not take for tests.
pytest.register_assert_rewrite("tests.engine.conformance.contract")
