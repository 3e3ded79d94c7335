"""`python -m vimlight`."""

from __future__ import annotations

from vimlight.cli import main

if __name__ == "__main__":
    main()
