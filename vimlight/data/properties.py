"""Properties that never pass for absent."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from vimlight.errors import DataError

__all__ = ["CertainProperties"]


class CertainProperties:
    """Base of classes whose properties others look for by `hasattr`, or by `getattr` with a default.

    An `AttributeError` that is raised *inside* a property reads to them as "there is no such property": a link from
    data to model is passed over, a default taken. Here it is another error, with the first one as its cause.
    """

    def __getattribute__(self, name: str) -> Any:
        """Returns an attribute.

        Raises:
            AttributeError: If there is none of that name.
            DataError: If it is a property and fails with an `AttributeError`.
        """
        try:
            return super().__getattribute__(name)
        except AttributeError as error:
            if isinstance(getattr(type(self), name, None), property | cached_property):
                raise DataError(f"{type(self).__name__}.{name} failed: {error}; --debug shows where") from error
            raise
