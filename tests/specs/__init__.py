"""The operations under test, by family."""

import importlib
import sys
import traceback
from pathlib import Path

from opspec import OpSpec

ALL: list[OpSpec] = []
for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    try:
        ALL.extend(importlib.import_module(f"specs.{path.stem}").SPECS)
    except Exception:
        print(f"--- specs/{path.name} does not import", file=sys.stderr)
        traceback.print_exc()
