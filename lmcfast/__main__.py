"""``python -m lmcfast``: the same as the command ``lmcfast``."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
