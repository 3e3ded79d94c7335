"""`vimlight zoo sign` and `verify`: who vouches for modules, and whether they are whole."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vimlight.commands.output import print_json, print_table
from vimlight.commands.zoo_opening import open_zoo
from vimlight.errors import ZooError

if TYPE_CHECKING:
    from vimlight.zoo import Card, Problem, Zoo

__all__ = ["add_commands"]

_CHECKED = "header, card by its schema, SHA-256 of card, tensors and head, finite numbers, plug-in type, signature"
_UNSIGNED = "not signed"


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands.

    Args:
        command: Adds a command by its name, what runs it and what it does; returns its parser.
    """
    sign = command("sign", _sign, "sign modules with an SSH key, by ssh-keygen; the signature lies in NAME.sig")
    sign.add_argument("names", metavar="NAME", nargs="*", help="modules (default: all)")
    sign.add_argument(
        "--key", metavar="FILE", required=True, help="private key, or the public one of a key in an agent"
    )
    verify = command("verify", _verify, "check every file and signature; exit code 1 if one is bad")
    verify.add_argument("--allowed-signers", metavar="FILE", help="who owns which key, as for git and ssh-keygen")
    verify.add_argument("--json", action="store_true", help="print JSON")


def _sign(options: argparse.Namespace) -> None:
    from vimlight.zoo.signing import keep_signature, sign

    zoo, key = open_zoo(options.zoo), Path(options.key).expanduser()
    names = options.names or zoo.names()
    # What is damaged is not vouched for.
    signatures = {name: sign(_whole(zoo, name), key) for name in names}
    for name, signature in signatures.items():
        keep_signature(zoo, name, signature)
        print(f"signed {name!r} of zoo {options.zoo!r}")


def _whole(zoo: Zoo, name: str) -> Card:
    """Returns the card of a module after checking the module and its head."""
    from vimlight.zoo.files import check_head, check_module

    zoo.card(name)
    check_head(zoo.file(name))
    return check_module(zoo.file(name))


def _verify(options: argparse.Namespace) -> None:
    zoo = open_zoo(options.zoo)
    allowed = None if options.allowed_signers is None else Path(options.allowed_signers).expanduser()
    problems = zoo.verify()
    signatures, bad = _signatures(zoo, {problem.file for problem in problems}, allowed)
    problems += bad
    if options.json:
        found = [problem._asdict() for problem in problems]
        print_json({"modules": len(zoo), "checked": _CHECKED, "signatures": signatures, "problems": found})
    elif problems:
        print_table(("file", "problem"), problems)
    else:
        print(f"modules checked: {len(zoo)}, all of them whole\nof each: {_CHECKED}")
    if not options.json and set(signatures.values()) - {_UNSIGNED}:
        print_table(("module", "signature"), sorted(signatures.items()))
    elif not options.json and signatures:
        print("signed: none of them")
    if problems:
        raise SystemExit(1)


def _signatures(zoo: Zoo, damaged: set[str], allowed: Path | None) -> tuple[dict[str, str], list[Problem]]:
    """Returns who signed each whole module, and which signatures are bad."""
    from vimlight.zoo import Problem
    from vimlight.zoo.files import signature_beside
    from vimlight.zoo.signing import check_signers

    if allowed is not None:
        check_signers(allowed)
    said, bad = {}, []
    for name in zoo:
        if zoo.file(name).name in damaged:
            continue
        try:
            said[name] = _signed_by(zoo, name, allowed)
        except ZooError as error:
            bad.append(Problem(signature_beside(zoo.file(name)).name, str(error)))
    return said, bad


def _signed_by(zoo: Zoo, name: str, allowed: Path | None) -> str:
    from vimlight.zoo.signing import available, key_of, signature_of, signer_of

    signature = signature_of(zoo, name)
    if signature is None:
        return _UNSIGNED
    if allowed is None and not available():
        return "not checked: ssh-keygen is not installed"
    if allowed is None:
        return f"signed with {key_of(zoo.card(name), signature)}; --allowed-signers tells whose it is"
    return f"signed by {signer_of(zoo.card(name), signature, allowed)}"
