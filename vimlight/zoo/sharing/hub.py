"""Zoos on the Hugging Face hub: a repository of type model, one folder for each zoo, and a README that is found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from vimlight.errors import ConfigError, ZooError
from vimlight.zoo.sharing.index import INDEX, Index
from vimlight.zoo.sharing.places import HttpPlace, Place, explained
from vimlight.zoo.sharing.readme import README, TAG, described

__all__ = ["HubPlace", "find_repositories"]

_SCHEME = re.compile(r"(?:hf://|hub:)")
_ADDRESS = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<folder>[\w./-]+?))?/?")
# Where a zoo lies in its repository unless its address names another folder.
_FOLDER = "zoo"
# Repositories that a search lists at most.
_MOST = 50


class HubPlace(Place):
    """A zoo in a repository of the hub; all of it is read as of one commit, and a push is one commit.

    Who is logged in (`hf auth login`, or `HF_TOKEN`) may read private repositories and write their own; another hub
    than huggingface.co is named by `HF_ENDPOINT`.

    Args:
        repository: Owner and name.
        revision: A commit, branch or tag to read; such a place is read-only.
        folder: The zoo's folder in the repository.
    """

    def __init__(self, repository: str, revision: str | None = None, folder: str = _FOLDER) -> None:
        self._repository, self._revision, self._folder = repository, revision, folder
        super().__init__(self._address(revision))
        self.writable = revision is None

    @staticmethod
    def is_address(url: str) -> bool:
        """Tells whether an address is one of the hub: `hf://` or `hub:`, and `OWNER/NAME[@REVISION][/FOLDER]`."""
        return _SCHEME.match(url) is not None

    @classmethod
    def at(cls, url: str) -> HubPlace:
        """Opens an address of the hub.

        Args:
            url: The address.

        Raises:
            ConfigError: If it names no repository, or a folder outside of it.
        """
        found = _ADDRESS.fullmatch(_SCHEME.sub("", url, count=1))
        if found is None or ".." in url:
            raise ConfigError(f"{url!r} is no zoo of the hub: hf://OWNER/NAME, with @REVISION or /FOLDER behind it")
        return cls(found["repository"], found["revision"], found["folder"] or _FOLDER)

    def pinned(self) -> str:
        """Returns the address with the commit that was read."""
        return self._address(self._commit)

    def pieces(self, file: str, start: int = 0) -> Iterator[bytes]:
        """Yields the content of a file; see `Place.pieces`."""
        return self._files(self._folder).pieces(file, start)

    def put(self, files: Mapping[str, Path | bytes], index: Index) -> None:
        """Writes files, the index and the README in one commit; see `Place.put`.

        Raises:
            ZooError: If somebody else has written meanwhile.
        """
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.errors import HfHubHTTPError

        self._api.create_repo(self._repository, repo_type="model", exist_ok=True)
        contents = {f"{self._folder}/{name}": content for name, content in files.items()}
        contents[f"{self._folder}/{INDEX}"] = index.to_json().encode()
        contents[README] = described(self._readme(), self._folder, index, self.url).encode()
        added = [CommitOperationAdd(name, content) for name, content in contents.items()]
        message = f"vimlight zoo: {len(files)} modules"
        try:
            made = self._api.create_commit(self._repository, added, commit_message=message, parent_commit=self._commit)
        except HfHubHTTPError as error:
            if error.response is not None and error.response.status_code in (409, 412):
                raise ZooError(f"{self.url} was written by somebody else meanwhile; push again") from error
            raise
        self._commit = made.oid

    def _index_text(self) -> bytes:
        if self._commit is None:
            raise ZooError(
                f"{self.url}: there is no such repository or revision, or it is private; log in with: hf auth login"
            ) from FileNotFoundError(INDEX)
        return super()._index_text()

    def _address(self, revision: str | None) -> str:
        at = f"@{revision}" if revision else ""
        return f"hf://{self._repository}{at}{'' if self._folder == _FOLDER else f'/{self._folder}'}"

    @cached_property
    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi()

    @cached_property
    def _commit(self) -> str | None:
        """The commit that is read; nothing where there is no repository."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        with explained(self.url, "read"):
            try:
                return str(self._api.repo_info(self._repository, repo_type="model", revision=self._revision).sha)
            except (RepositoryNotFoundError, RevisionNotFoundError):
                return None

    def _files(self, folder: str) -> HttpPlace:
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not in __all__

        root = f"{self._api.endpoint}/{self._repository}/resolve/{self._commit}"
        return HttpPlace(f"{root}/{folder}" if folder else root, build_hf_headers())

    def _readme(self) -> str:
        if self._commit is None:
            return ""
        # A repository need not have one.
        with suppress(FileNotFoundError):
            return b"".join(self._files("").pieces(README)).decode(errors="replace")
        return ""


def find_repositories(words: Sequence[str]) -> list[tuple[str, str, str]]:
    """Returns repositories of the hub that hold zoos, by the hub's own search.

    Args:
        words: What is looked for in their names.

    Returns:
        Address, licence and what else their tags say, of the first of them.

    Raises:
        ZooError: If the hub cannot be asked.
    """
    from huggingface_hub import HfApi

    with explained("the hub", "searched"):
        found = list(HfApi().list_models(filter=TAG, search=" ".join(words) or None, limit=_MOST))
    return [(f"hf://{each.id}", *_licence_and_tags(each.tags or [])) for each in found]


def _licence_and_tags(tags: Sequence[str]) -> tuple[str, str]:
    licences = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    return ", ".join(licences), ", ".join(tag for tag in tags if ":" not in tag and tag != TAG)
