"""Who vouches for a module: a signature by an SSH key, made and checked by `ssh-keygen`, in `NAME.sig` beside it.

Signed is what the card states, which holds the hashes of the module's and its head's tensors; not signed are the name,
which may change, and how the file is laid out. Who owns which key is said by a file of allowed signers, as
`ssh-keygen(1)` describes it and git uses it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vimlight.errors import ZooError, cut, printable, shown
from vimlight.files.absent import absence
from vimlight.files.atomic import write_whole
from vimlight.files.text import is_file
from vimlight.zoo.card import Card
from vimlight.zoo.files import signature_beside
from vimlight.zoo.zoo import Zoo

__all__ = [
    "available", "check_signers", "checked_form", "keep_signature", "key_of", "sign", "signature_of", "signed_text",
    "signer_of",
]  # fmt: skip

# Characters that a signature has at most; those of the longest usual keys have less than 4,000.
_LONGEST = 1 << 16
# Keeps a signature of something else from being taken for one of a module.
_NAMESPACE = "vimlight-module"
_PATIENCE = 120
_PROGRAM = "ssh-keygen"
_BEGINNING = "-----BEGIN SSH SIGNATURE-----"


def signed_text(card: Card) -> bytes:
    """Returns what is signed of a module: what its card states, as JSON with sorted keys.

    Left out is what is not stated, so that fields to come do not break signatures, and the version of the format.
    """
    stated = {key: value for key, value in json.loads(card.to_json()).items() if value not in ("", None, [], {})}
    del stated["format_version"]
    return json.dumps(stated, sort_keys=True, separators=(",", ":")).encode()


def sign(card: Card, key: Path) -> str:
    """Returns a signature of a module.

    Args:
        card: The module's card.
        key: An SSH key: the private one's file, or the public one's where an agent has the private one.

    Raises:
        ZooError: If there is no such key or it signs nothing, or `ssh-keygen` is missing.
    """
    if not is_file(key):
        raise ZooError(f"key {str(key)!r} {absence(key)}")
    made = _run(["sign", "-f", str(key), "-n", _NAMESPACE], signed_text(card))
    if made.returncode or not made.stdout.startswith(_BEGINNING):
        raise ZooError(f"key {str(key)!r} signs nothing: {_said(made)}")
    return made.stdout


def signer_of(card: Card, signature: str, allowed: Path) -> str:
    """Returns who signed a module.

    Args:
        card: The module's card.
        signature: The signature.
        allowed: A file of allowed signers.

    Raises:
        ZooError: If none of them did, the module is another one than was signed, or `ssh-keygen` is missing.
    """
    check_signers(allowed)
    why = ""
    with _as_file(signature) as file:
        found = _run(["find-principals", "-s", file, "-f", str(allowed)])
        for name in found.stdout.splitlines():
            asked = ["verify", "-f", str(allowed), "-I", name, "-n", _NAMESPACE, "-s", file]
            checked = _run(asked, signed_text(card))
            if checked.returncode == 0:
                return printable(name)
            why = f" ({_said(checked)})"
    key = key_of(card, signature)
    raise ZooError(f"the signature is good, but {key} is none of the allowed signers of {str(allowed)!r}{why}")


def key_of(card: Card, signature: str) -> str:
    """Returns with which key a module was signed, such as `"ED25519 key SHA256:..."`; whose it is remains open.

    Args:
        card: The module's card.
        signature: The signature.

    Raises:
        ZooError: If the signature is none, or that of another module, or `ssh-keygen` is missing.
    """
    with _as_file(signature) as file:
        checked = _run(["check-novalidate", "-n", _NAMESPACE, "-s", file], signed_text(card))
    if checked.returncode:
        raise ZooError(f"the signature is bad: the module is not what was signed ({_said(checked)})")
    return printable(checked.stdout.strip().rpartition(" with ")[2])


def check_signers(allowed: Path) -> None:
    """Checks that there is a file of allowed signers.

    Raises:
        ZooError: If there is none.
    """
    if not is_file(allowed):
        raise ZooError(f"file of allowed signers {str(allowed)!r} {absence(allowed)}")


def signature_of(zoo: Zoo, name: str) -> str | None:
    """Returns the signature of a module of a zoo, unchecked; nothing if there is none.

    Raises:
        ZooError: If its file cannot be read or is no text of that kind.
    """
    file = signature_beside(zoo.file(name))
    if not file.exists():
        return None
    try:
        with file.open("rb") as opened:
            return checked_form(opened.read(_LONGEST + 1).decode("ascii", "replace"), file.name)
    except OSError as error:
        raise ZooError(f"{file.name} cannot be read: {error.strerror}") from error


def checked_form(text: str, what: str) -> str:
    """Returns a text if it looks like a signature.

    Args:
        text: The text, which may be a stranger's.
        what: What it is called in messages.

    Raises:
        ZooError: If it does not.
    """
    if not text.startswith(_BEGINNING) or len(text) > _LONGEST or not text.isascii():
        raise ZooError(f"{what} is no SSH signature: it begins with {shown(text[:30])}")
    return text


def keep_signature(zoo: Zoo, name: str, signature: str) -> None:
    """Writes the signature of a module beside it, in place of one that is there.

    Args:
        zoo: The zoo.
        name: The module.
        signature: The signature.
    """
    write_whole(signature_beside(zoo.file(name)), signature, overwrite=True)


@contextmanager
def _as_file(signature: str) -> Iterator[str]:
    """Puts a signature into a temporary file, as `ssh-keygen` wants it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "signature")
        file.write_text(signature)
        yield str(file)


def available() -> bool:
    """Tells whether there is an `ssh-keygen`."""
    return shutil.which(_PROGRAM) is not None


def _run(arguments: list[str], message: bytes = b"") -> subprocess.CompletedProcess[str]:
    if not available():
        raise ZooError("ssh-keygen, which makes and checks signatures, is not installed; it comes with OpenSSH")
    try:
        done = subprocess.run([_PROGRAM, "-Y", *arguments], input=message, capture_output=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise ZooError(f"ssh-keygen gave no answer within {_PATIENCE} s") from error
    out, said = (part.decode(errors="replace") for part in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, out, said)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = printable(done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
    return cut(lines[-1].strip(), 160)
