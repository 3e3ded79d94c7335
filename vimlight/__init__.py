"""Vision Middleware: a zoo of small modules on one frozen backbone, aggregated for few-shot tasks."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
