"""Checkpoints: plain types and tensors only, so that `torch.load` with its defaults (weights_only) reads them.

Every file says what it is: `format` (version), `kind`, and what a reader needs to use it without another option.
An encoder file holds: arch, scaling, state (torchvision's parameter names), recipe, epoch, images, commit.
"""

import pickle
from pathlib import Path
from typing import Any

import torch

from DualScaleNet.encoder import ARCHITECTURES, SCALINGS, Encoder
from DualScaleNet.files import replacing
from DualScaleNet.runtime import UserError, git_commit

FORMAT = 1


def save_checkpoint(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Writes `content` with the format version, its kind and this checkout's commit, whole or not at all."""
    with replacing(path) as temporary:
        torch.save({"format": FORMAT, "kind": kind, "commit": git_commit(), **content}, temporary)


def load_checkpoint(path: Path, kind: str) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU.

    Raises:
        UserError: the file is missing, damaged, foreign, of another kind, or from a newer version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        raise UserError(f"{path} is damaged or no checkpoint of this project") from None
    if not isinstance(content, dict) or "format" not in content or "kind" not in content:
        raise UserError(f"{path} is no checkpoint of this project")
    if content["format"] > FORMAT:
        raise UserError(f"{path} has format {content['format']}, newer than {FORMAT}: update this checkout")
    if content["kind"] != kind:
        raise UserError(f"{path} is a checkpoint of kind {content['kind']!r}, not {kind!r}")
    return content


def save_encoder(path: Path, encoder: Encoder, recipe: str, epoch: int, images: int) -> None:
    """Writes an encoder with all that a user of it must know; `images` is the training-set size."""
    content = {"arch": encoder.arch, "scaling": encoder.scaling, "state": encoder.state_dict()}
    save_checkpoint(path, "encoder", {**content, "recipe": recipe, "epoch": epoch, "images": images})


def load_encoder(path: Path) -> tuple[Encoder, dict[str, Any]]:
    """The encoder in a file of `save_encoder`, and what the file says of it.

    Raises:
        UserError: the file is unfit; missing and unexpected parameters are named.
    """
    content = load_checkpoint(path, "encoder")
    state = content.pop("state")
    if content["arch"] not in ARCHITECTURES or content["scaling"] not in SCALINGS:
        raise UserError(f"{path} holds an unknown encoder: {content['arch']}, scaling {content['scaling']}")
    encoder = Encoder(content["arch"], content["scaling"])
    try:
        encoder.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit {content['arch']}: {' '.join(str(error).split())}") from None
    return encoder, content
