"""On a GPU: the views, losses, steps and maps of the CPU, runs that change their device, and no step that waits.

What can be told without a GPU stands in test_pretended_gpu.py. A minute on an H100.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import options_of, pretrain, rows, run_script, train
from epochs import pretraining_epoch, segmentation_epoch
from torch import Tensor

from Dataset.fundus import draw_fundus
from DownStream import train as segmentation
from DownStream.data import Photograph
from DownStream.inference import Predictor, reestimate_batch_norm
from DownStream.model import DECODERS, Segmenter
from DownStream.transforms import NetworkInput
from DualScaleNet import main as pretraining
from DualScaleNet.common.device import seeded_generator
from DualScaleNet.data import batches, hold
from DualScaleNet.encoder import Encoder
from DualScaleNet.loss import global_loss, local_loss
from DualScaleNet.model import DualScaleNet
from DualScaleNet.recipes import RECIPES, Recipe
from DualScaleNet.views import global_views, local_views, standardise

CPU, DEVICE = torch.device("cpu"), torch.device("cuda", 0)
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """TF32, three digits of a product, would hide what is compared; the variable is for the scripts."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32  # monkeypatch cannot undo these
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def modes() -> Iterator[list[str]]:
    """What becomes of waits for the GPU after the first step of an epoch, and after the second; reset in any case."""
    yield ["error", "default"]
    torch.cuda.set_sync_debug_mode("default")


def drawn(count: int, side: int) -> np.ndarray:
    """Photographs, (count, side, side, 3) uint8."""
    return np.stack([draw_fundus(np.random.default_rng(seed), side, side).image for seed in range(count)])


def as_images(photographs: np.ndarray) -> Tensor:
    return torch.from_numpy(photographs).permute(0, 3, 1, 2).float() / 255


def views_of(recipe: Recipe, images: Tensor) -> list[Tensor]:
    """x, y and the whole views; not standardised."""
    generator, all_operations = seeded_generator(0), recipe.augmentation == "all"
    x, y = local_views(images, generator, all_operations=all_operations)
    return [x, y, global_views(images, generator, recipe.crop, all_operations)]


# --- pretraining


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_same_seed_gives_the_same_views(name):
    """But for rotated pixels on the border between two: rounding decides which of them is the nearest."""
    recipe, images = RECIPES[name], as_images(drawn(8, 224))
    # Where the colours change too, such a pixel moves the mean grey of its view, hence the contrast, a little.
    tolerance = 1e-4 if recipe.augmentation == "all" else 1e-5
    for here, there in zip(views_of(recipe, images), views_of(recipe, images.to(DEVICE)), strict=True):
        assert there.device == DEVICE
        assert ((here - there.cpu()).abs() > tolerance).double().mean() < 1e-4
        assert ((standardise(here) - standardise(here.to(DEVICE)).cpu()).abs() > 1e-5).double().mean() < 1e-4


@pytest.mark.parametrize("name", ["paper", "release"])
def test_a_step_in_float64_is_the_cpus(name):
    """Losses and running statistics to 1e-9, parameters after Adam to 1e-8: the loop over views against one pass."""
    recipe = RECIPES[name]
    views = [view.double() for view in views_of(recipe, as_images(drawn(4, 96)))]

    def step(device: torch.device) -> tuple[Tensor, DualScaleNet]:
        torch.manual_seed(0)
        network = DualScaleNet(stop_gradient=recipe.stop_gradient, one_pass=device != CPU).double().to(device)
        # A rate at which Adam makes 1e4 of a difference between gradients near zero; 1e5 would be too many.
        optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
        embeddings = network(*(view.to(device) for view in views))
        local, globally = local_loss(*embeddings[:2]), global_loss(*embeddings[2:])
        (0.5 * globally + 0.5 * local.total).backward()
        optimizer.step()
        return torch.stack([globally, *local]).detach().cpu(), network.cpu()

    (here, cpu_network), (there, gpu_network) = step(CPU), step(DEVICE)
    assert torch.allclose(here, there, rtol=0, atol=1e-9)
    for name, buffer in cpu_network.named_buffers():
        assert torch.allclose(buffer, gpu_network.get_buffer(name), rtol=1e-9, atol=1e-9), name
    for name, parameter in cpu_network.named_parameters():
        assert torch.allclose(parameter, gpu_network.get_parameter(name), rtol=0, atol=1e-8), name


def test_a_step_in_bfloat16_is_finite(monkeypatch):
    args = options_of(monkeypatch, pretraining, "--image-size", 96, "--batch-size", 4, "--precision", "bfloat16")
    network, epoch = pretraining_epoch(args, drawn(4, 96), DEVICE)
    row = epoch(lambda: None)
    assert row["skipped"] == 0 and np.isfinite([row["loss"], row["local_projection_std"]]).all()
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_held_photographs_are_those_of_the_mapping():
    photographs = drawn(6, 64)
    held = hold(photographs, DEVICE)
    assert isinstance(held, Tensor) and held.device == DEVICE
    indices = [np.array([1, 4]), np.array([0, 2, 3]), np.array([5])]
    for index, *both in zip(
        indices, batches(held, indices, DEVICE), batches(photographs, indices, DEVICE), strict=True
    ):
        for batch in both:
            assert batch.device == DEVICE and np.array_equal(batch.cpu().numpy(), photographs[index])


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_no_step_of_pretraining_waits(recipe, held, modes, monkeypatch):
    args = options_of(monkeypatch, pretraining, "--recipe", recipe, "--image-size", 96, "--batch-size", 4)
    photographs = drawn(12, 96)
    _, epoch = pretraining_epoch(args, hold(photographs, DEVICE) if held else photographs, DEVICE)
    row = epoch(lambda: torch.cuda.set_sync_debug_mode(modes.pop(0)))
    assert modes == [] and np.isfinite(row["loss"])


def test_a_run_goes_on_on_either_device(trees, tmp_path):
    """From each device to each: the second epoch changes the 3x3 convolutions as it does where it went on on the CPU.

    Adam magnifies rounding: updates of the same step agree to .4 (in the norm, float32). With moments in another layout
    than their parameter's they differ by 1.15 and more.
    """
    places = ("cpu", DEVICE.type)

    def run(name: str, epochs: int, device: str) -> dict[str, Tensor]:
        options = ("--epochs", epochs, "--device", device, "--precision", "float32")
        pretrain(trees / "ddr_757", tmp_path / name, *options, gpu=True)
        assert [row["epoch"] for row in rows(tmp_path / name / "log.csv")] == ["1", "2"][:epochs]
        state = torch.load(tmp_path / name / "last.pth")["model"]
        return {name: x for name, x in state.items() if x.shape[2:] == (3, 3) and x.shape[1] > 3}

    with ThreadPoolExecutor() as pool:
        begun = list(pool.map(run, ("0", "1"), (1, 1), places))
        for first in "01":
            for second in "01":
                shutil.copytree(tmp_path / first, tmp_path / (first + second))
        ended = list(pool.map(run, ("00", "01", "10", "11"), (2,) * 4, places * 2))
    for start, on_cpu, on_gpu in zip(begun, ended[::2], ended[1::2], strict=True):
        assert len(start) == 8
        for name, before in start.items():
            update = on_cpu[name] - before
            assert (on_gpu[name] - on_cpu[name]).norm() < 0.75 * update.norm(), name


# --- segmentation


@pytest.mark.parametrize("options", [("--crop", 64, "--fov", "loss"), ("--roi", "disc", "--localiser", "a.pth")])
def test_no_step_of_segmentation_waits(options, drishti, modes, monkeypatch):
    small = ("--size", 96, "--batch-size", 2, "--encoder", "random")
    data = ("--dataset", "drishti-gs", "--data-dir", drishti, "--target", "disc")
    _, epoch = segmentation_epoch(options_of(monkeypatch, segmentation, *data, *small, *options), DEVICE)
    row = epoch(lambda: torch.cuda.set_sync_debug_mode(modes.pop(0)))
    assert modes == [] and np.isfinite(row["loss"])


@pytest.fixture(scope="module")
def photograph() -> Photograph:
    eye = draw_fundus(np.random.default_rng(0), 150, 130)
    return Photograph("a", torch.from_numpy(eye.image).permute(2, 0, 1), {}, torch.from_numpy(eye.fov))


@pytest.mark.parametrize("fit", ["pad", "resize"])
def test_the_networks_input_is_the_cpus(fit, photograph):
    """But for the few values that are rounded up here and down there; such a one may move a map by more than 1e-4."""
    network_input = NetworkInput(fit, 128, standardise=True)
    here, there = (network_input.scale(photograph.retina.to(device)).cpu().int() for device in (CPU, DEVICE))
    assert (here - there).abs().max() <= 1 and (here != there).double().mean() < 1e-3
    maps = torch.rand(2, *here.shape[1:], generator=seeded_generator(0))
    here, there = (network_input.restore(maps.to(device), 130, 150).cpu() for device in (CPU, DEVICE))
    assert torch.allclose(here, there, rtol=0, atol=1e-5)


@pytest.mark.parametrize("window, tta", [(None, False), (64, False), (None, True), (64, True)])
def test_maps_are_the_cpus(window, tta, photograph):
    network_input = NetworkInput("pad", 128)
    torch.manual_seed(0)
    model = Segmenter(Encoder(), 2, True, DECODERS["compact"])
    reestimate_batch_norm(model.encoder, [network_input.pad(photograph.image)])
    predictor = Predictor(model, network_input, fov_crop=True, window=window, tta=tta)
    here = predictor(photograph).maps
    model.to(DEVICE, memory_format=torch.channels_last)
    there = predictor(photograph).maps
    assert there.device == CPU and here.std() > 0.01
    assert torch.allclose(here, there, rtol=0, atol=1e-4)


def test_training_and_prediction_from_end_to_end(trees, tmp_path):
    """In the GPU's own precision; the frozen encoder is compared at the end."""
    run, options = tmp_path / "run", ("--device", DEVICE.type)
    output = train(trees / "DRIVE", run, "--encoder", "random", "--epochs", 2, *options, gpu=True).stdout
    assert f"on {DEVICE}" in output and "the encoder is as it was: 168 tensors compared" in output
    predict = ("DownStream/predict.py", "--checkpoint", run / "best.pth", *options)
    output = run_script(*predict, "--window", 64, "--out", tmp_path / "maps", gpu=True).stdout
    assert "f1" in output and len(list((tmp_path / "maps" / "probability").iterdir())) == 2
