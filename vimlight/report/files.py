"""Result files: whole or absent, and never replaced unless asked."""

from __future__ import annotations

from vimlight.files.atomic import refuse_existing, write_whole

__all__ = ["refuse_existing", "write_whole"]
