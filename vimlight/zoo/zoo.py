"""A zoo: a directory of module files.

Looking at cards needs no backbone, so what imports timm is imported where a module is made, kept or checked.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vimlight.errors import ZooError, unknown_name
from vimlight.files.atomic import publish, temporary, write_whole
from vimlight.files.finite import check_finite
from vimlight.files.leftovers import sweep
from vimlight.plugins.registry import PLUGINS
from vimlight.zoo.card import FORMAT_VERSION, Card, describe
from vimlight.zoo.files import (
    beside,
    check_head,
    check_module,
    pack_module,
    plain,
    read_card,
    read_head,
    read_module,
    sha256_of,
    signature_beside,
)
from vimlight.zoo.names import HEAD_SUFFIX, SUFFIX, check_name

if TYPE_CHECKING:
    from torch import Tensor

    from vimlight.backbone import Backbone
    from vimlight.plugins import Plugin

__all__ = ["Problem", "Zoo", "checked_module"]


class Problem(NamedTuple):
    """What is wrong with a file of a zoo.

    Attributes:
        file: The file's name.
        text: What is wrong.
    """

    file: str
    text: str


class Zoo:
    """A directory of modules: `NAME.safetensors` each, with the head that was trained with it, if it was kept.

    There is no index, so files may be copied in and out by hand; what a file claims is checked when it is loaded. The
    hashes reveal damage and careless edits; against a forger a module is signed, see `vimlight.zoo.signing`.

    Args:
        path: The directory; it need not exist before the first module is added.

    Raises:
        ZooError: If the path is something other than a directory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        if self.path.exists() and not self.path.is_dir():
            raise ZooError(f"{str(self.path)!r} is not a directory; a zoo is a directory of .safetensors files")

    def __repr__(self) -> str:
        return f"Zoo({str(self.path)!r})"

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names."""
        return iter(self.names())

    def __len__(self) -> int:
        """Returns the number of modules."""
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        """Tells whether there is a module of that name."""
        return name in self.names()

    def names(self) -> list[str]:
        """Lists the modules in alphabetical order."""
        stems = (file.name.removesuffix(SUFFIX) for file in self.path.glob(f"[!.]*{SUFFIX}"))
        return sorted(filter(_is_listed, stems))

    def file(self, name: str) -> Path:
        """Returns where the file of a module is, or would be."""
        return self.path / f"{name}{SUFFIX}"

    def card(self, name: str) -> Card:
        """Reads a module's card; only the file's header is read.

        Args:
            name: The module.

        Raises:
            ZooError: If there is no such module, or its file is damaged or of a newer format.
        """
        return read_card(self._existing(name))

    def load(self, name: str, backbone: Backbone) -> Plugin:
        """Loads a module for the backbone it was trained on.

        Args:
            name: The module.
            backbone: The backbone.

        Returns:
            The module with exactly the tensors of the file, in eval mode, frozen, on the backbone's device.

        Raises:
            FingerprintError: If it was trained on another backbone.
            ZooError: If there is no such module, its file is damaged, its plug-in type is unknown here, or its tensors
                are not those of the type.
        """
        from vimlight.zoo.rebuild import rebuild

        return rebuild(name, *read_module(self._existing(name)), backbone)

    def read(self, name: str) -> tuple[Card, dict[str, Tensor]]:
        """Reads a module's card and tensors, for which no backbone is needed.

        Args:
            name: The module.

        Raises:
            ZooError: If there is no such module, or its file is damaged or of an unknown plug-in type.
        """
        return checked_module(self._existing(name))

    def load_head(self, name: str) -> dict[str, Tensor]:
        """Loads the tensors of the head that was trained with a module.

        Args:
            name: The module.

        Returns:
            Tensors by name, on the CPU.

        Raises:
            ZooError: If there is no such module or head, or the head is damaged or another module's.
        """
        tensors = read_head(self._existing(name))
        if tensors is None:
            raise ZooError(f"module {name!r} has no head")
        return tensors

    def check_new(self, name: str, overwrite: bool = False, way: str = "") -> None:
        """Checks that a module can be added under a name, for those who want to know before they train it.

        Args:
            name: The name.
            overwrite: Whether a module of that name may be replaced.
            way: How the caller says that one may be; nothing where it cannot be said.

        Raises:
            ZooError: If the name is taken or not allowed.
        """
        check_name(name)
        if not overwrite and self.file(name).exists():
            raise self._taken(name, way)

    def add(
        self,
        name: str,
        plugin: Plugin,
        card: Card | Mapping[str, Any] | None = None,
        head: Mapping[str, Tensor] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Saves a module; its file appears whole or not at all, and no other file is touched.

        Args:
            name: A new name of lower-case letters, digits, `-`, `_` and `.`.
            plugin: The module.
            card: Describing fields of `Card`, such as `{"task": "classification", "license": "apache-2.0"}`.
            head: The tensors of its head by name, such as a `state_dict`.
            overwrite: Whether a module of that name may be replaced.

        Raises:
            ZooError: If the name is taken or not allowed, the card has an unknown key or a mistyped value, or a tensor
                is not finite.
        """
        from vimlight.plugins import Plugin

        if not isinstance(plugin, Plugin):
            raise ZooError(f"a zoo keeps plug-ins made by create_plugin, not {type(plugin).__name__}")
        tensors = plain(plugin.state_dict())
        head_tensors = plain(head) if head else None
        sha256 = sha256_of(head_tensors) if head_tensors else ""
        self._write(name, describe(plugin, card or {}, sha256_of(tensors), sha256), tensors, head_tensors, overwrite)

    def add_file(self, path: str | os.PathLike[str], name: str | None = None, overwrite: bool = False) -> str:
        """Copies a module from elsewhere into the zoo after checking all that needs no backbone.

        Its head comes along, and its signature as it is.

        Args:
            path: A module's `.safetensors` file.
            name: Its name here; the file's own if left out.
            overwrite: Whether a module of that name may be replaced.

        Returns:
            Its name here.

        Raises:
            ZooError: If the file is missing, damaged, no module or of an unknown plug-in type, or the name is taken.
        """
        source = Path(path).expanduser()
        stem = source.name.removesuffix(SUFFIX)
        if stem.endswith(HEAD_SUFFIX):
            owner = stem.removesuffix(HEAD_SUFFIX)
            raise ZooError(f"{source.name} is a head; add the module {owner}{SUFFIX} beside it")
        card, tensors = checked_module(source)
        head = read_head(source)
        self._write(name or stem, card, tensors, head, overwrite)
        signature = signature_beside(source)
        if signature.is_file():
            write_whole(signature_beside(self.file(name or stem)), signature.read_bytes(), overwrite=True)
        return name or stem

    def export(self, names: str | Iterable[str], to: str | os.PathLike[str]) -> list[Path]:
        """Copies modules out of the zoo after checking them; their heads and signatures come along.

        Args:
            names: One name or several.
            to: A directory, which is a zoo then; or, for one module, a new `.safetensors` file.

        Returns:
            The modules' new files.

        Raises:
            ZooError: If there is no such module, one is damaged, or a target exists; nothing is written then.
        """
        chosen = [names] if isinstance(names, str) else list(names)
        target = Path(to).expanduser()
        as_file = target.suffix == SUFFIX
        if as_file and len(chosen) != 1:
            raise ZooError(f"{len(chosen)} modules do not fit into the one file {target.name}; export to a directory")
        other = Zoo(target.parent if as_file else target)
        renamed = {name: target.name.removesuffix(SUFFIX) if as_file else name for name in chosen}
        for name, new in renamed.items():
            checked_module(self._existing(name))
            read_head(self.file(name))
            other.check_new(new)
        return [other.file(other.add_file(self.file(name), new)) for name, new in renamed.items()]

    def take(self, copy: Path, name: str, overwrite: bool = False) -> None:
        """Gives a whole file, which lies in the zoo's directory under a hidden name, the name of a module.

        Args:
            copy: The file.
            name: The module.
            overwrite: Whether a module of that name may be replaced.

        Raises:
            ZooError: If the name is taken.
        """
        file = self.file(name)
        try:
            publish(copy, file, overwrite)
        except FileExistsError as error:
            raise self._taken(name) from error
        # What belonged to the module that is replaced: the head of one of an earlier version, and its signature.
        beside(file).unlink(missing_ok=True)
        signature_beside(file).unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Deletes a module, its head and its signature.

        Args:
            name: The module.

        Raises:
            ZooError: If there is no such module.
        """
        path = self._existing(name)
        # The head first: what is left after an interruption says that it is missing.
        beside(path).unlink(missing_ok=True)
        signature_beside(path).unlink(missing_ok=True)
        try:
            path.unlink()
        except FileNotFoundError:
            raise ZooError(f"module {name!r} was removed by another process meanwhile") from None

    def verify(self) -> list[Problem]:
        """Checks all that needs no backbone: headers, cards, hashes, plug-in types, and which head belongs to which.

        Returns:
            What is wrong, file by file; empty if nothing is.

        Raises:
            ZooError: If the directory does not exist.
        """
        if not self.path.is_dir():
            raise ZooError(f"zoo {str(self.path)!r} does not exist")
        return [
            Problem(file.name, text)
            for file in sorted(self.path.glob(f"[!.]*{SUFFIX}"))
            if (text := self._problem(file))
        ]

    def _problem(self, file: Path) -> str:
        stem = file.name.removesuffix(SUFFIX)
        owner = stem.removesuffix(HEAD_SUFFIX)
        if stem.endswith(HEAD_SUFFIX):
            # With its module it is looked at there.
            return "" if owner in self else f"is a head, but there is no module {owner!r}"
        try:
            _check_kind(file, check_module(file))
            check_head(file)
        except ZooError as error:
            return str(error).removeprefix(file.name).lstrip(": ")
        return ""

    def _taken(self, name: str, way: str = "") -> ZooError:
        replacing = f", or replace it with {way}" if way else ""
        return ZooError(f"zoo {str(self.path)!r} has a module {name!r} already; take another name{replacing}")

    def _existing(self, name: str) -> Path:
        # Without a look at the other files, of which there may be thousands.
        if _is_listed(name) and self.file(name).is_file():
            return self.file(name)
        names = self.names()
        if not self.path.is_dir():
            raise ZooError(f"zoo {str(self.path)!r} does not exist, so there is no module {name!r}")
        if not names:
            raise ZooError(f"zoo {str(self.path)!r} is empty, so there is no module {name!r}")
        raise ZooError(str(unknown_name(f"module of zoo {str(self.path)!r}:", name, names)))

    def _write(
        self, name: str, card: Card, tensors: dict[str, Tensor], head: dict[str, Tensor] | None, overwrite: bool
    ) -> None:
        self.check_new(name, overwrite)
        check_finite(tensors, f"module {name!r}", ZooError)
        check_finite(head or {}, f"the head of module {name!r}", ZooError)
        file, card = self.file(name), dataclasses.replace(card, format_version=FORMAT_VERSION)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            sweep(self.path)
            with temporary(file, pack_module(card, tensors, head)) as copy:
                self.take(copy, name, overwrite)
        except OSError as error:
            raise ZooError(f"module {name!r} cannot be written to {str(self.path)!r}: {error.strerror}") from error


def _is_listed(stem: str) -> bool:
    return not stem.endswith(HEAD_SUFFIX) and not stem.startswith(".") and stem == Path(stem).name


def checked_module(path: Path) -> tuple[Card, dict[str, Tensor]]:
    """Reads a module's card and tensors, for which no backbone is needed.

    Args:
        path: Its file.

    Raises:
        ZooError: If it is missing, damaged, no module or of an unknown plug-in type.
    """
    card, tensors = read_module(path)
    _check_kind(path, card)
    return card, tensors


def _check_kind(path: Path, card: Card) -> None:
    if card.kind not in PLUGINS:
        raise ZooError(f"{path.name}: {unknown_name('plug-in', card.kind, PLUGINS)}")
