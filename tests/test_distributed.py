"""Several processes: gradients of two gloo processes are the mean over their halves, and torchrun trains."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import torch
from conftest import ROOT
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from DualScaleNet.loss import global_loss, local_loss
from DualScaleNet.model import DualScaleNet
from DualScaleNet.runtime import largest


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, y and whole-image views of six photographs, always the same."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 6, 9, 3, 32, 32, generator=g, dtype=torch.float64)
    return x, y, torch.rand(6, 2, 3, 64, 64, generator=g, dtype=torch.float64)


def gradients(model: DualScaleNet, network: torch.nn.Module, half: slice) -> dict[str, torch.Tensor]:
    """Of the whole loss over half of the batch, by parameter name."""
    model.zero_grad()
    p, z, q, w = network(*(views[half] for views in batch()))
    (0.5 * global_loss(q, w) + 0.5 * local_loss(p, z).total).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def fresh_model(synchronised: bool = False) -> DualScaleNet:
    torch.manual_seed(0)
    return DualScaleNet(synchronised=synchronised).double()


def assert_close(value: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    """In norm: threads and processes sum in another order, and the normalisations magnify that."""
    error = (value - expected).norm() / expected.norm().clamp(min=1e-6)
    assert error < 1e-6, f"{name}: {error}"


def process(rank: int, folder: str, synchronised: bool) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = fresh_model(synchronised)
    result = gradients(model, DistributedDataParallel(model), slice(3 * rank, 3 * rank + 3))
    result |= {name: value for name, value in model.state_dict().items() if "running" in name}
    assert largest(15 if rank else False) == 15  # a signal that has reached one of them
    torch.save(result, f"{folder}/{rank}.pth")
    distributed.destroy_process_group()


def test_gradients_of_two_processes_are_the_mean_over_the_half_batches(tmp_path):
    multiprocessing.spawn(process, (str(tmp_path), False), nprocs=2)
    model = fresh_model()
    halves = [gradients(model, model, slice(0, 3)), gradients(model, model, slice(3, 6))]
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pth")
        for name in halves[0]:
            assert_close(result[name], (halves[0][name] + halves[1][name]) / 2, name)


def test_with_synchronised_statistics_two_processes_are_one(tmp_path):
    """Gradients and running statistics equal those of one process with the whole batch."""
    multiprocessing.spawn(process, (str(tmp_path), True), nprocs=2)
    model = fresh_model()
    expected = gradients(model, model, slice(0, 6))
    expected |= {name: value for name, value in model.state_dict().items() if "running" in name}
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pth")
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(result[name], value, name)


def test_torchrun_trains_and_logs_once(trees: Path, tmp_path: Path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        ROOT / "DualScaleNet" / "main.py", "--data", trees / "ddr_757", "--run-dir", tmp_path / "run",
        "--cache", tmp_path / "cache", "--image-size", "96", "--batch-size", "4", "--epochs", "2", "--device", "cpu",
        "--batch-norm=synchronised", "--weights", "0", "1", "0.8", "0.2",  # GlobalFocus is off
    ]
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == 0, result.stderr
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert result.stdout.count("10 photographs, 2 steps an epoch") == 1
    assert torch.load(tmp_path / "run" / "encoder.pth")["epoch"] == 2
