"""Checkpoints: plain types and tensors only, so that `torch.load` with its defaults (weights_only) reads them.

Every file says what it is: `format` (version), `kind`, and what a reader needs to use it without another option.
"""

import hashlib
import os
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from DualScaleNet.common.files import replacing
from DualScaleNet.common.script import UserError, few, git_commit, warn

FORMAT = 2  # 1 had no log in training checkpoints


def sha256(path: Path) -> str:
    """A file's checksum."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class DamagedError(UserError):
    """The file is not what was once written."""


def save_checkpoint(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Writes `content` with the format version, its kind and this checkout's commit, whole or not at all.

    It is read back before it takes the place of an older file.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    with replacing(path) as temporary:
        _write(temporary, kind, content)


def save_latest(path: Path, kind: str, content: dict[str, Any]) -> None:
    """As `save_checkpoint`; the file that was there stays beside it as NAME-previous, for `load_latest`."""
    with replacing(path) as temporary:
        _write(temporary, kind, content)
        if path.exists():
            os.replace(path, _previous(path))


def _write(path: Path, kind: str, content: dict[str, Any]) -> None:
    try:
        torch.save({"format": FORMAT, "kind": kind, "commit": git_commit(), **content}, path)
        if not _checksums_fit(path):
            raise OSError("what was written reads otherwise")
    except RuntimeError as error:  # so PyTorch says that the disk is full
        raise OSError(f"the disk took only a part of it: {str(error).splitlines()[0]}") from None


def _previous(path: Path) -> Path:
    return path.with_stem(f"{path.stem}-previous")


def load_checkpoint(path: Path, *kinds: str) -> dict[str, Any]:
    """What `save_checkpoint` wrote, of one of these kinds, on the CPU.

    Raises:
        UserError: the file is missing, damaged, foreign, of another kind, or from a newer version.
    """
    content = load_file(path)
    if not is_ours(content):
        raise UserError(f"{path} is no checkpoint of this project")
    if content["format"] > FORMAT:
        raise UserError(f"{path} has format {content['format']}, newer than {FORMAT}: update this checkout")
    if content["kind"] not in kinds:
        raise UserError(f"{path} is a checkpoint of kind {content['kind']!r}, not {kinds[0]!r}")
    return content


def load_latest(path: Path, kind: str) -> dict[str, Any] | None:
    """What `save_latest` wrote last; if that file is damaged or gone, what it wrote before; None if there is neither.

    Raises:
        UserError: no intact file is left, or it is of another kind or version.
    """
    files = [file for file in (path, _previous(path)) if file.exists()]
    for file in files:
        try:
            content = load_checkpoint(file, kind)
        except DamagedError as error:
            if file == files[-1]:
                raise
            warn(f"{error}; resuming from {files[-1]}, the checkpoint before it")
            continue
        if content["format"] < FORMAT:
            raise UserError(f"{file} was written by too old a version to resume: start over with --resume never")
        return content
    return None


def restore(path: Path, content: dict[str, Any], parts: dict[str, Any]) -> None:
    """Gives each part, a network or an optimiser, its state from a checkpoint that was read from `path`.

    An optimiser's moments take the memory layout of their parameter. They keep that of the device that saved them
    otherwise, and the fused Adam, which goes by memory alone, would give a weight another one's moments.

    Raises:
        UserError: a state does not fit; names the first that are missing, unexpected or of another shape.
    """
    for name, part in parts.items():
        try:
            part.load_state_dict(content[name])
        except (RuntimeError, ValueError) as error:
            why = misfits(part.state_dict(), content[name]) if isinstance(part, torch.nn.Module) else ""
            raise UserError(f"the {name} in {path} does not fit: {why or ' '.join(str(error).split())}") from None
        if isinstance(part, torch.optim.Optimizer):
            for parameter, state in part.state.items():
                for key, value in state.items():
                    if value.shape == parameter.shape and value.stride() != parameter.stride():
                        state[key] = torch.empty_like(parameter).copy_(value)


def misfits(own: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> str:
    """How a network's state dict differs in names and shapes from what it is given, in one line; "" if it does not."""
    kinds = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [name for name in own if name in state and own[name].shape != state[name].shape],
    }
    return "; ".join(f"{len(names)} {kind} ({few(names)})" for kind, names in kinds.items() if names)


def fingerprint(*states: dict[str, Any]) -> int:
    """Of state dicts: changes with any tensor's values, not with their memory layout or device."""
    result = 0
    for tensor in _tensors(states):
        result = zlib.crc32(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data, result)
    return result


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _tensors(each)


def is_ours(content: Any) -> bool:
    """Whether a file's content was written by `save_checkpoint`."""
    return isinstance(content, dict) and isinstance(content.get("format"), int) and "kind" in content


def load_file(path: Path) -> Any:
    """Whatever plain types and tensors a file of PyTorch holds.

    Raises:
        UserError: there is no such file, or it holds other objects than those; a DamagedError if it is damaged.
    """
    try:
        if zipfile.is_zipfile(path) and not _checksums_fit(path):
            raise EOFError
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"cannot read {path} ({error.strerror})") from None
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            what = "holds more than tensors and plain values"
            raise UserError(f"{path} {what}: refused, since it could run code") from None
        raise DamagedError(f"{path} is damaged or no checkpoint") from None
    except Exception:  # a damaged file may raise anything
        raise DamagedError(f"{path} is damaged or no checkpoint") from None


def _checksums_fit(path: Path) -> bool:
    """Whether the CRC-32 that is stored with each part of the file is still its own; PyTorch does not look."""
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None
