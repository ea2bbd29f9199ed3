"""A trained network as a graph for other programs, with what they must know of it."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from DownStream.checkpoints import load_segmentation
from DownStream.inference import Predictor
from DownStream.model import Segmenter
from DownStream.options.export import Options
from DownStream.selection import newest_checkpoint
from DualScaleNet.common.files import replacing
from DualScaleNet.common.options import STRIDE
from DualScaleNet.common.script import UserError
from DualScaleNet.views import standardise


class Exported(nn.Module):
    """A network with what its colours need before, and the sigmoid behind."""

    def __init__(self, model: Segmenter, standardised: bool) -> None:
        super().__init__()
        self.model, self.standardised = model, standardised

    def forward(self, photograph: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> probabilities (N, classes, H, W); H and W multiples of 32, at least 64."""
        image = photograph.float() / 255
        return self.model(standardise(image) if self.standardised else image).sigmoid()


def export(options: Options) -> None:
    """All that export.py does.

    Raises:
        UserError: a package is missing, or the checkpoint cannot be exported.
    """
    path = options.checkpoint or newest_checkpoint()
    out = options.out or path.with_suffix(".onnx")
    if out.suffix == ".onnx" and not (find_spec("onnx") and find_spec("onnxscript")):
        raise UserError("ONNX needs two more packages: pip install onnx onnxscript")
    checkpoint = load_segmentation(path)
    if checkpoint.get("localiser"):
        raise UserError(
            f"{path} looks for the disc with one network and segments around it with another (--roi disc), which is no "
            "single graph: export a network trained without --roi, or use DownStream/segmentation.py"
        )
    predictor = Predictor.load(checkpoint, torch.device("cpu"))
    program = graph_of(Exported(predictor.model, predictor.network_input.standardise))
    facts = facts_of(checkpoint, predictor)
    write = write_onnx if out.suffix == ".onnx" else write_torch_export
    with replacing(out) as temporary:
        write(program, facts, temporary)
    print(f"{out}: {', '.join(checkpoint['targets'])}; how to call it: docs/programs.md")


def graph_of(network: Exported) -> ExportedProgram:
    """The network's graph for any number of photographs of any height and width that are multiples of 32."""
    network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    fix_padding(network)
    # One more than the least of each: torch.export takes a dimension of 1 for a fixed one.
    example = torch.zeros(2, 3, 3 * STRIDE, 4 * STRIDE, dtype=torch.uint8)
    height, width = (STRIDE * Dim(name, min=2) for name in ("rows", "columns"))
    shapes = ({0: Dim("batch"), 2: height, 3: width},)
    try:
        with torch.no_grad():
            program = torch.export.export(network, (example,), dynamic_shapes=shapes)
    except Exception as error:  # of many kinds; ours export, some of timm's do not
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"PyTorch cannot export this network for photographs of any size ({why})") from None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the folders of this machine
    return program


def fix_padding(network: nn.Module) -> None:
    """Makes the padding of TensorFlow's networks constant: it depends on the size, but not where all sides are even."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, Conv2dSame) and child.stride == (2, 2):
                rows, columns = (side - 2 for side in child.kernel_size)
                padding = nn.ZeroPad2d((columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
                child.__class__ = nn.Conv2d  # type: ignore[assignment]  # which pads nothing of its own
                setattr(module, name, nn.Sequential(padding, child))


def facts_of(checkpoint: dict[str, Any], predictor: Predictor) -> dict[str, str]:
    """What a caller must know: text as it is, all else as JSON."""
    network_input = predictor.network_input
    facts = {
        "targets": checkpoint["targets"], "fit": network_input.fit, "size": network_input.size,
        "diameter": network_input.diameter, "fov_crop": predictor.fov_crop, "standardise": network_input.standardise,
        "threshold": 0.5, "dataset": ", ".join(checkpoint["dataset"]),
    }  # fmt: skip
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def write_onnx(program: ExportedProgram, facts: dict[str, str], path: Path) -> None:
    """One file; the facts are its metadata_props."""
    found = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=["photograph"], output_names=["probability"]
    )
    assert found  # None where PyTorch writes the file itself
    found.model.metadata_props.update(facts)
    found.save(path)


def write_torch_export(program: ExportedProgram, facts: dict[str, str], path: Path) -> None:
    """One file; the facts lie in it as facts.json."""
    torch.export.save(program, path, extra_files={"facts.json": json.dumps(facts)})
