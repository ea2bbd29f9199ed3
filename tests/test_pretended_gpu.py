"""What only a GPU shows, without one: no tensor meets one of another device, and no step waits for the card."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import options_of
from epochs import Epoch, pretraining_epoch, segmentation_epoch
from pretended_gpu import CPU, GPU, MixedDevicesError, PretendedGPU, pretended_gpu
from torch import Tensor, nn

from Dataset.fundus import draw_fundus
from DownStream import train as segmentation
from DownStream.data import Photograph
from DownStream.inference import Predictor
from DownStream.model import DECODERS, Segmenter
from DownStream.transforms import NetworkInput
from DualScaleNet import main as pretraining
from DualScaleNet.data import hold
from DualScaleNet.encoder import Encoder


def submit_here(_: ThreadPoolExecutor, call: Callable, *args: object) -> Future[object]:
    """What another thread would do, at once: a mode holds for one thread."""
    future: Future[object] = Future()
    future.set_result(call(*args))
    return future


@pytest.fixture
def gpu() -> Iterator[PretendedGPU]:
    free = patch("torch.cuda.mem_get_info", return_value=(1 << 40, 1 << 40))
    with pretended_gpu() as gpu, patch.object(ThreadPoolExecutor, "submit", submit_here), free:
        yield gpu


def waits_of_the_first_step(gpu: PretendedGPU, epoch: Epoch) -> tuple[list[str], dict[str, float]]:
    """Runs an epoch of two steps, and also returns its row of `log.csv`."""
    gpu.blocking.clear()
    waits: list[str] = []
    row = epoch(lambda: waits.extend(gpu.blocking))
    return waits, row


# --- the scripts


@pytest.mark.slow
@pytest.mark.parametrize("recipe, held", [("paper", True), ("release", False), ("steady", True)])
def test_a_step_of_pretraining(recipe, held, gpu, monkeypatch):
    options = ("--recipe", recipe, "--image-size", 96, "--batch-size", 2, "--precision", "float32")
    photographs = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
    if held:
        photographs = hold(photographs, GPU)
        assert photographs.device == GPU
    network, epoch = pretraining_epoch(options_of(monkeypatch, pretraining, *options), photographs, GPU)
    waits, row = waits_of_the_first_step(gpu, epoch)
    assert not waits, "a step waits:\n" + "\n".join(waits)
    assert np.isfinite(row["loss"])
    assert {x.device for each in network.parameters() for x in (each, each.grad)} == {GPU}


@pytest.mark.parametrize("options", [("--crop", 64, "--fov", "loss"), ("--roi", "disc", "--localiser", "a.pth")])
def test_a_step_of_segmentation(options, drishti, gpu, monkeypatch):
    small = ("--size", 96, "--batch-size", 2, "--precision", "float32", "--encoder", "random", "--epochs", 1)
    data = ("--dataset", "drishti-gs", "--data-dir", drishti, "--target", "disc")
    model, epoch = segmentation_epoch(options_of(monkeypatch, segmentation, *data, *small, *options), GPU)
    waits, row = waits_of_the_first_step(gpu, epoch)
    assert not waits, "a step waits:\n" + "\n".join(waits)
    assert np.isfinite(row["loss"])
    assert {x.device for each in model.detail.parameters() for x in (each, each.grad)} == {GPU}


def test_a_prediction(gpu):
    """As on the CPU; the photograph goes there, the maps come back, and nothing else."""
    eye = draw_fundus(np.random.default_rng(0), 90, 60)
    photograph = Photograph("a", torch.from_numpy(eye.image).permute(2, 0, 1), {}, torch.from_numpy(eye.fov))
    torch.manual_seed(0)
    model = Segmenter(Encoder(), 2, True, DECODERS["compact"])
    predictor = Predictor(model, NetworkInput("pad", 64, True), window=64, tta=True)
    expected = predictor(photograph).maps
    model.to(GPU)
    gpu.blocking.clear()
    maps = predictor(photograph).maps
    assert maps.device == CPU and torch.equal(maps, expected)
    assert [wait.split(": ")[1] for wait in gpu.blocking] == ["copy from cpu to cuda", "copy from cuda to cpu"]


# --- what the pretence sees


def on_gpu(*shape: int) -> Tensor:
    return torch.ones(shape, device=GPU)


@pytest.mark.parametrize(
    "mix, names",
    [
        (lambda: on_gpu(3) + torch.ones(3), r"aten\.add\.Tensor: .*: cuda \(3,\), cpu \(3,\)"),
        (lambda: on_gpu(3, 3) @ torch.ones(3, 3), r"aten\.mm.*: cuda \(3, 3\), cpu \(3, 3\)"),
        (lambda: torch.cat([on_gpu(1), torch.ones(1)]), r"aten\.cat.*cuda \(1,\), cpu \(1,\)"),
        (lambda: torch.ones(()).add_(on_gpu()), r"aten\.add_.*cpu \(\), cuda \(\)"),
        (lambda: torch.ones(3)[on_gpu(3) > 0], r"aten\.index"),
        (lambda: on_gpu(3).index_put_((on_gpu(3) > 0,), torch.ones(3)), "index_put_: the value is on the cpu"),
        (lambda: on_gpu(3)[1:].view(2, 1) * torch.ones(2, 1), r"aten\.mul"),
        (lambda: nn.Linear(2, 2)(on_gpu(1, 2)), r"aten\.addmm"),
        (lambda: torch.rand(3, device=GPU, generator=torch.Generator()), "a generator of the cpu"),
        (lambda: on_gpu(3).numpy(), "numpy of a tensor on cuda"),
    ],
)
def test_tensors_of_two_devices_do_not_mix(mix, names, gpu):
    with pytest.raises(MixedDevicesError, match=names):
        mix()


def test_nor_do_they_in_the_backward_pass_and_in_adam(gpu):
    weight, fixed = on_gpu(3).requires_grad_(), torch.ones(3)
    weight.register_hook(lambda gradient: gradient * fixed)
    with pytest.raises(MixedDevicesError, match=r"aten\.mul"):
        (2 * weight).sum().backward()
    weight = on_gpu(3).requires_grad_()
    weight.grad = torch.ones(3)
    with pytest.raises(MixedDevicesError, match=r"aten\._fused_adam_"):
        torch.optim.Adam([weight], fused=True).step()


def test_what_a_card_takes_and_does_not_wait_for(gpu):
    x, index = on_gpu(3), torch.tensor([0, 2])
    losses = torch.zeros(3, 2, device="cuda:0")
    losses[1] = torch.stack([x.sum(), x.mean()]).detach()
    losses[2] = float("nan")
    results = [
        x + torch.ones(()), torch.where(x > 0, x, 1), x.new_zeros(3), torch.zeros_like(x), x.masked_fill(x > 0, 2.0),
        x[index.to(x.device, non_blocking=True)], torch.ones(3).to(x, non_blocking=True), x.copy_(2 * x),
        torch.ones(3).pin_memory().to("cuda", torch.float64, non_blocking=True), x[1:].float(), x.double(), losses,
        torch.arange(3, device=x.device), torch.nn.functional.cosine_similarity(x, x, 0), x.to(GPU),
    ]  # fmt: skip
    x[x > 1] = 0
    assert [(each.device, each.is_cuda) for each in results] == [(GPU, True)] * len(results)
    assert gpu.blocking == []


@pytest.mark.parametrize(
    "wait, what",
    [
        (lambda x: torch.ones(3).to(x.device), "copy from cpu to cuda"),
        (lambda x: torch.ones(3).cuda(), "copy from cpu to cuda"),
        (lambda x: nn.Flatten().register_buffer("a", torch.ones(3).to(x)), "copy from cpu to cuda"),
        (lambda x: x.copy_(torch.ones(3)), "copy from cpu to cuda"),
        (lambda x: torch.tensor([1.0], device=x.device), "torch.tensor copies from cpu to cuda"),
        (lambda x: x.cpu(), "copy from cuda to cpu"),
        (lambda x: x.to("cpu", torch.float64), "copy from cuda to cpu"),
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: bool(x.sum()), "_local_scalar_dense"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: (x > 0).nonzero(), "nonzero"),
        (lambda x: x[x > 0], "a mask as index"),
        (lambda x: x[torch.tensor([0, 2])], "an index on the cpu"),
        (lambda x: x[torch.tensor([True, False, True])], "an index on the cpu"),
        (lambda x: x.index_put_((torch.tensor([0]),), on_gpu(1)), "an index on the cpu"),
        (lambda x: x.index_put_((torch.arange(2, device=GPU),), torch.ones(())), "a value on the cpu"),
    ],
)
def test_waits_are_noted_with_their_place(wait, what, gpu):
    wait(on_gpu(3))
    (noted,) = gpu.blocking
    line = wait.__code__.co_firstlineno
    assert noted.startswith(f"tests/test_pretended_gpu.py:{line} <lambda>: ") and what in noted
