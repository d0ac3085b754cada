"""This machine's signing key (Ed25519): what it signed, nobody changed who could not read the key.

The key lies outside of every workspace: $ENPIRE_SIGNING_KEY, else `enpire/signing_key` in the user's configuration
folder. It is made when it is first needed. Policies and training code cannot read it (docs/architecture.md).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from nacl.encoding import HexEncoder
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

_SIGNER, _SIGNATURE = 'signer', 'signature'


class SigningError(ValueError):
    """No key, or a signature that does not hold; the message says which file and the way out."""


def key_file() -> Path:
    """Where the key lies or will lie."""
    given = os.environ.get('ENPIRE_SIGNING_KEY')
    if given:
        return Path(given).expanduser()
    configuration = os.environ.get('XDG_CONFIG_HOME') or '~/.config'
    return Path(configuration).expanduser() / 'enpire' / 'signing_key'


def signed(content: dict) -> dict:
    """`content` with `signer` (public key, hex) and `signature` over all the rest."""
    key = _own_key()
    content = {**content, _SIGNER: key.verify_key.encode(HexEncoder).decode()}
    return {**content, _SIGNATURE: key.sign(_canonical(content)).signature.hex()}


def check_signature(content: dict, file: Path | str) -> None:
    """Raise SigningError where `content`, read from `file`, is not just what this machine's key signed."""
    try:
        VerifyKey(content[_SIGNER], HexEncoder).verify(
            _canonical({name: value for name, value in content.items() if name != _SIGNATURE}),
            bytes.fromhex(content[_SIGNATURE]))
    except KeyError as error:
        raise SigningError(f'{file}: has no {error}, so nobody signed it') from None
    except (BadSignatureError, ValueError, TypeError):
        raise SigningError(f'{file}: was changed after it was signed') from None
    own = own_signer()
    if content[_SIGNER] != own:
        raise SigningError(f"{file}: was signed by another key ({content[_SIGNER][:16]}...) than this machine's "
                           f'({own[:16]}..., {key_file()})')


def own_signer() -> str:
    """This machine's public key, hex."""
    return _own_key().verify_key.encode(HexEncoder).decode()


def _canonical(content: dict) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(',', ':'), ensure_ascii=True).encode()


def _own_key() -> SigningKey:
    file = key_file()
    try:
        if not file.exists():
            _make_key(file)
        return SigningKey(file.read_text(encoding='ascii').strip(), HexEncoder)
    except OSError as error:
        raise SigningError(f'{file}: the signing key cannot be read or made ({error.strerror}); export '
                           'ENPIRE_SIGNING_KEY=<a file in a folder that only you may write to>') from error
    except ValueError as error:
        raise SigningError(f'{file}: is no signing key ({error}); put it back from a copy, or remove it: a new one is '
                           'made, and what the old one signed has to be frozen anew') from error


def _make_key(file: Path) -> None:
    """Several processes may do this at once: the first one's key is the one."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = file.with_name(f'.{file.name}.{os.getpid()}.part')
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, 'wb') as stream:
            stream.write(SigningKey.generate().encode(HexEncoder) + b'\n')
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(beside, file)
        except FileExistsError:
            pass
    finally:
        beside.unlink()
