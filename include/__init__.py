"""The engine's source, the specs and the example of an Astro project. The engine is imported as ``projection_rebuild``."""

import sys
from importlib.util import find_spec

if find_spec("projection_rebuild") is None:
    # Version 0.1 needed only the project's folder on the path.
    sys.path.append(__path__[0])

import projection_rebuild  # noqa: F401 - makes the engine's old paths importable
