"""Several processes: gradients of two gloo processes are the mean over their halves, and torchrun trains.

Two agents of torchrun stand for two hosts; each has a run folder and a cache of its own, as on local disks.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from datetime import timedelta
from functools import partial
from pathlib import Path
from unittest import mock

import faults
import pytest
import torch
from conftest import ROOT, rows, run_script
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from DualScaleNet.common.processes import Processes
from DualScaleNet.common.resume import resume
from DualScaleNet.common.run import Position
from DualScaleNet.loss import global_loss, local_loss
from DualScaleNet.model import DualScaleNet
from DualScaleNet.pretrain import Pretraining

pytestmark = pytest.mark.slow


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
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(found) == len(list(model.parameters()))
    return found


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
    torch.save(result, f"{folder}/{rank}.pth")
    both = mock.Mock(Processes, count=2)
    losses = torch.tensor([rank, 3.0])
    for _ in range(2):  # what was averaged when a checkpoint was saved is averaged again at the end of the epoch
        Processes.average(both, losses)
    assert losses.tolist() == [0.5, 3.0]
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


def meet(rank: int, port: int) -> Processes:
    """As torchrun starts a process."""
    variables = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "GROUP_RANK": rank, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in variables.items()} | {"MASTER_ADDR": "localhost"}
    return Processes()


def slow_process(rank: int, port: int, folder: str) -> None:
    # Collectives may take a second here, half an hour elsewhere.
    distributed.init_process_group = partial(distributed.init_process_group, timeout=timedelta(seconds=1))
    processes = meet(rank, port)
    processes.connect_devices(torch.device("cpu"))
    assert processes.largest(15 if rank else False) == 15  # a signal that has reached one of them
    time.sleep(4 * rank)
    assert processes.gather(rank) == [0, 1]
    assert processes.hand_out({"of": rank}, 1) == {"of": 1}
    processes.leave()
    Path(folder, f"{rank}").touch()


def test_a_host_that_takes_longer_than_collectives_may_is_waited_for(tmp_path):
    multiprocessing.spawn(slow_process, (free_port(), str(tmp_path)), nprocs=2)
    assert len(list(tmp_path.iterdir())) == 2


def test_resume_never_starts_over_unless_torchrun_has_restarted_the_processes(tmp_path):
    """The same for a file to go on from: by then it is the older one."""
    processes = Processes()
    options = Namespace(
        run_dir=tmp_path, resume="never", schedule="constant", recipe="paper", batch_size=2, precision="float32",
        image_size=96, standardise=False,
    )  # fmt: skip
    model = fresh_model()
    paths = [Path(f"{k}.png") for k in range(9)]

    def resumed(choice: object) -> Pretraining:
        options.resume = str(choice)
        run = Pretraining(options, model, torch.optim.Adam(model.parameters()), paths, processes)
        assert not resume(run, 9)
        return run

    def place(choice: object) -> tuple[int, int]:
        run = resumed(choice)
        return run.epoch, run.step

    new = resumed("never")
    assert (new.began, new.epoch, new.rows) == (processes.launch, 0, [])
    new.start_at(Position(3, 1, new.losses, [], new.began))
    new.save()
    assert place("never") == (3, 1)
    old = (tmp_path / "last.pth").rename(tmp_path / "old.pth")
    branch = resumed(old)
    assert (branch.epoch, branch.step) == (3, 1)
    branch.start_at(Position(5, began=branch.began))
    branch.save()
    assert place(old) == (5, 0)

    processes.launch += 1  # started anew, by hand
    assert place(old) == (3, 1) and place("never") == (0, 0) and place("auto") == (5, 0)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def torchrun(folder: Path, data: Path, *options: object, epochs: int = 2) -> subprocess.Popen:
    """An agent; `folder` is its host's disk."""
    small = ("--image-size", 96, "--batch-size", 4, "--save-minutes", 0, "--epochs", epochs, "--device", "cpu")
    method = ("--batch-norm", "synchronised", "--weights", 1, 0, 0.8, 0.2)  # LocalFocus is off: 2 views, not 20
    places = ("--data", data, "--run-dir", folder / "run", "--cache", folder / "cache")
    command = [sys.executable, "-m", "torch.distributed.run", *options, ROOT / "DualScaleNet" / "main.py"]
    return subprocess.Popen(
        [str(part) for part in (*command, *places, *small, *method)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def two_hosts(*folders: Path, data: list[Path], epochs: int = 2) -> list[subprocess.Popen]:
    """Agents that meet by c10d: the first process is that of the agent started first."""
    meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}")
    return [torchrun(*each, "--nnodes", 2, *meeting, epochs=epochs) for each in zip(folders, data, strict=True)]


def ends(agents: list[subprocess.Popen], code: int = 0) -> list[tuple[str, str]]:
    """Stdout and stderr of each agent."""
    outputs = [agent.communicate(timeout=200) for agent in agents]
    assert [agent.returncode for agent in agents] == [code] * len(agents), outputs
    return outputs


@pytest.fixture(scope="module")
def undisturbed(trees: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run folder of two processes on one host, and what they said."""
    folder = tmp_path_factory.mktemp("host")
    [(out, _)] = ends([torchrun(folder, trees / "ddr_757", "--standalone", "--nproc-per-node", 2)])
    return folder / "run", out


def test_torchrun_trains_and_logs_once(undisturbed):
    run, out = undisturbed
    assert [row["epoch"] for row in rows(run / "log.csv")] == ["1", "2"]
    assert out.count("10 photographs, 2 steps an epoch") == 1
    assert torch.load(run / "encoder.pth")["epoch"] == 2


def test_hosts_go_on_from_a_checkpoint_that_only_one_of_them_has(trees, undisturbed, tmp_path):
    """And whichever is first in the end has the whole run in its folder."""
    shutil.copytree(trees / "ddr_757", tmp_path / "photographs")  # as it may be called on another host
    a, b, data = tmp_path / "a", tmp_path / "b", [trees / "ddr_757", tmp_path / "photographs"]
    ends(two_hosts(a, b, data=data, epochs=1))
    assert not (b / "run").exists()
    [(out, _), _] = ends(two_hosts(b, a, data=data[::-1]))
    [taken] = [line for line in out.splitlines() if "resuming from the checkpoint of" in line]
    assert "(process 1)" in taken and "resuming after epoch 1" in out.splitlines()
    faults.same_end(undisturbed[0], b / "run", "pretraining")
    assert (b / "run" / "curves.png").exists()


def errors(output: tuple[str, str]) -> list[str]:
    return [line for line in output[1].splitlines() if line.startswith("main.py: error: ")]


def test_other_photographs_on_one_host_end_both_in_one_line(trees, tmp_path):
    shutil.copytree(trees / "ddr_757", tmp_path / "photographs")
    next((tmp_path / "photographs" / "train").rglob("*.jpg")).unlink()
    data = [trees / "ddr_757", tmp_path / "photographs"]
    outputs = ends(two_hosts(tmp_path / "a", tmp_path / "b", data=data), code=1)
    for output in outputs:
        [line] = errors(output)
        assert f"{socket.gethostname()} (process 1) differs from" in line
        assert "the number of photographs (9, not 10)" in line


def test_an_error_on_one_host_is_told_on_the_other(trees, tmp_path):
    shutil.copytree(trees / "ddr_757", tmp_path / "photographs")
    damaged = next((tmp_path / "photographs" / "train").rglob("*.jpg"))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    data = [trees / "ddr_757", tmp_path / "photographs"]
    theirs, own = ends(two_hosts(tmp_path / "a", tmp_path / "b", data=data), code=1)
    for output, who in ((theirs, f"{socket.gethostname()} (process 1): "), (own, "")):
        [line] = errors(output)
        assert line.startswith(f"main.py: error: {who}cannot read {damaged} (no image)")


def test_a_killed_process_is_started_again_and_ends_as_one_never_killed(trees, undisturbed, tmp_path):
    meeting = ("--nnodes", 2, "--master-addr", "localhost", "--master-port", free_port(), "--max-restarts", 3)
    folders = [tmp_path / "a", tmp_path / "b"]
    agents = [
        torchrun(folder, trees / "ddr_757", *meeting, "--node-rank", rank) for rank, folder in enumerate(folders)
    ]
    while not (folders[0] / "run" / "last.pth").exists() and agents[0].poll() is None:
        time.sleep(0.01)
    os.kill(child_of(agents[1].pid), signal.SIGKILL)
    first, _ = ends(agents)
    assert len(errors(first)) == 1 and "the connection to another process broke" in errors(first)[0]
    faults.same_end(undisturbed[0], folders[0] / "run", "pretraining")


def child_of(pid: int) -> int:
    """The process that an agent has started."""
    answer = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=True)
    return int(answer.stdout)


def test_segmentation_is_not_trained_by_several_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun does
    stderr = run_script("DownStream/train.py", code=1).stderr
    assert stderr == "train.py: error: training for segmentation runs in one process: start it without torchrun\n"
