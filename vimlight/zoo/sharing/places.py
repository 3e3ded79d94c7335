"""Where zoos lie that are shared: directories, object stores and web servers, through fsspec, and the hub."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from vimlight.errors import ConfigError, VimlightError, ZooError, cut
from vimlight.files.atomic import locked, write_whole
from vimlight.files.partial import PIECE
from vimlight.masking import masked
from vimlight.zoo.sharing.index import INDEX, LARGEST_INDEX, Index

__all__ = ["HttpPlace", "Place", "content_of", "explained", "open_place"]

# Seconds without a byte, after which a server is given up.
_PATIENCE = 60
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")


@contextmanager
def explained(place: str, doing: str) -> Iterator[None]:
    """Says in one line what a file system's library complains of.

    Args:
        place: What the place is called.
        doing: What is being done, such as `"read"`.

    Raises:
        ZooError: For whatever is raised: those libraries have no common base of their errors.
    """
    try:
        yield
    except VimlightError:
        raise
    except FileNotFoundError as error:
        raise ZooError(f"{place} cannot be {doing}: it is not there") from error
    except Exception as error:
        why = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
        raise ZooError(f"{place} cannot be {doing}: {cut(masked(why), 160)}") from error


class Place(ABC):
    """A zoo elsewhere.

    Args:
        url: Its address, which goes into messages and locks; credentials in it are left out of both.

    Attributes:
        url: That.
        writable: Whether modules can be put there.
    """

    writable = True

    def __init__(self, url: str) -> None:
        self.url = _CREDENTIALS.sub("", url)

    @abstractmethod
    def pieces(self, file: str, start: int = 0) -> Iterator[bytes]:
        """Yields the content of a file from a byte on.

        Args:
            file: Its name.
            start: Where to begin.
        """

    @abstractmethod
    def put(self, files: Mapping[str, Path | bytes], index: Index) -> None:
        """Writes files, and the index behind them.

        Args:
            files: Contents, or where they are here, by the names there; files that exist there are replaced.
            index: What lies there then.
        """

    def alone(self) -> AbstractContextManager[None]:
        """Keeps others from writing between what is read and what is written, where the place has means for it."""
        return nullcontext()

    def pinned(self) -> str:
        """Returns the address under which the same files will be found, as far as the place can tell."""
        return self.url

    def index(self) -> Index:
        """Returns what lies there.

        Raises:
            ZooError: If it cannot be read, or is no index.
        """
        return Index.from_json(self._index_text(), self.url)

    def index_or_empty(self) -> Index:
        """Returns what lies there, which may be nothing yet; raises as `index` for others."""
        try:
            text = self._index_text()
        except ZooError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return Index({})
            raise
        return Index.from_json(text, self.url)

    def _index_text(self) -> bytes:
        return content_of(self, INDEX, LARGEST_INDEX)


def content_of(place: Place, file: str, largest: int) -> bytes:
    """Returns the content of a small file elsewhere.

    Args:
        place: Where it is.
        file: Its name.
        largest: How many bytes it may have.

    Raises:
        ZooError: If it cannot be read or is larger.
    """
    content = bytearray()
    with explained(f"{file} of {place.url}", "read"):
        for piece in place.pieces(file):
            content += piece
            if len(content) > largest:
                raise ZooError(f"{file} of {place.url} has more than {largest >> 20} MB and is not read")
    return bytes(content)


class DirectoryPlace(Place):
    """A directory that this machine sees; what is written there appears whole or not at all.

    Args:
        url: Its address.
        path: The directory.
    """

    def __init__(self, url: str, path: Path) -> None:
        super().__init__(url)
        self._path = path

    def pieces(self, file: str, start: int = 0) -> Iterator[bytes]:
        """Yields the content of a file; see `Place.pieces`."""
        with (self._path / file).open("rb") as opened:
            opened.seek(start)
            while piece := opened.read(PIECE):
                yield piece

    def pinned(self) -> str:
        """Returns the directory's path, wherever it is asked for from."""
        return str(self._path.absolute())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes of this machine out of the directory."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ZooError(f"{self.url} cannot be written: {error.strerror}") from error
        with locked(self._path):
            yield

    def put(self, files: Mapping[str, Path | bytes], index: Index) -> None:
        """Writes files; see `Place.put`."""
        for name, content in files.items():
            target = self._path / name
            # A zoo may get an index of itself.
            if isinstance(content, bytes) or not target.exists() or not content.samefile(target):
                write_whole(target, _bytes_of(content), overwrite=True)
        write_whole(self._path / INDEX, index.to_json(), overwrite=True)

    def _index_text(self) -> bytes:
        if self._path.is_dir() and not (self._path / INDEX).exists() and any(self._path.glob("[!.]*.safetensors")):
            raise ZooError(
                f"{self.url} has modules but no {INDEX}; make one with: vimlight zoo push {self.url} --zoo {self._path}"
            ) from FileNotFoundError(INDEX)
        return super()._index_text()


class StorePlace(Place):
    """A place in any file system of fsspec, such as an object store.

    Args:
        url: Its address.
        system: The file system.
        root: Where in it.
    """

    def __init__(self, url: str, system: Any, root: str) -> None:
        super().__init__(url)
        self._system, self._root = system, root.rstrip("/")

    def pieces(self, file: str, start: int = 0) -> Iterator[bytes]:
        """Yields the content of a file; see `Place.pieces`."""
        with self._system.open(f"{self._root}/{file}", "rb") as opened:
            opened.seek(start)
            while piece := opened.read(PIECE):
                yield piece

    def put(self, files: Mapping[str, Path | bytes], index: Index) -> None:
        """Writes files; see `Place.put`. Of two that put at the same time the later one's index stands."""
        self._system.makedirs(self._root, exist_ok=True)
        for name, content in files.items():
            self._system.pipe_file(f"{self._root}/{name}", _bytes_of(content))
        self._system.pipe_file(f"{self._root}/{INDEX}", index.to_json().encode())


class HttpPlace(Place):
    """A directory of a web server, which can be read alone; it need not list files, nor send parts of them.

    Args:
        url: Its address.
        headers: What is sent with every request.
    """

    writable = False

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(url)
        self._root, self._headers = url.rstrip("/"), dict(headers or {})

    def pieces(self, file: str, start: int = 0) -> Iterator[bytes]:
        """Yields the content of a file; see `Place.pieces`."""
        import aiohttp
        from fsspec.implementations.http import HTTPFileSystem

        headers = {**self._headers, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_PATIENCE, sock_read=_PATIENCE)
        system = HTTPFileSystem(client_kwargs={"timeout": timeout, "trust_env": True})
        # One stream, and no question for a size before it, which the index says.
        with system.open(f"{self._root}/{file}", block_size=0, size=1, headers=headers) as opened:
            # Servers that send no parts send the whole again.
            skipped = 0 if opened.r.status == 206 else start
            while piece := opened.read(PIECE):
                yield piece[skipped:]
                skipped = max(0, skipped - len(piece))

    def put(self, files: Mapping[str, Path | bytes], index: Index) -> None:
        """Refuses.

        Raises:
            ZooError: Always.
        """
        raise ZooError(f"{self.url} is read-only: push to where its files lie")


def _bytes_of(content: Path | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def open_place(url: str) -> Place:
    """Opens a zoo elsewhere; nothing is read yet.

    Args:
        url: A directory, `file://`, `s3://`, `gs://` or any other address that fsspec knows, `http(s)://`, which is
            read-only, or `hf://OWNER/NAME` of the Hugging Face hub.

    Raises:
        ConfigError: If nothing can be opened there: no such kind of address, or its package is missing.
    """
    from vimlight.zoo.sharing.hub import HubPlace

    if HubPlace.is_address(url):
        return HubPlace.at(url)
    if "::" in url or "?" in url or "#" in url:
        raise ConfigError(f"{url!r} is no address of a zoo: '::', '?' and '#' have no place in it")
    if re.match(r"https?://", url):
        return HttpPlace(url)
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{url!r} cannot be opened: {str(error).splitlines()[0]}") from error
    if isinstance(system, fsspec.implementations.local.LocalFileSystem):
        return DirectoryPlace(url, Path(root).expanduser())
    return StorePlace(url, system, root)
