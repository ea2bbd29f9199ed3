"""Short forms of tests/faults.py, and what the scripts say when a machine or a number fails them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
import torch
from conftest import ROOT, call, pretrain, rows, train
from filelock import FileLock
from PIL import Image

from Dataset.synthetic import write_ddr, write_drive
from DownStream import predict
from DownStream import train as segmentation
from DownStream import training as segmentation_run
from DualScaleNet import main as pretraining
from DualScaleNet import pretrain as pretraining_run
from DualScaleNet.common import script
from DualScaleNet.common.checkpoint import load_checkpoint
from DualScaleNet.common.files import claim, read_image
from DualScaleNet.common.run import Position, Run
from DualScaleNet.common.script import StopSignal, UserError, run_script
from DualScaleNet.encoder import Encoder, save_encoder

CPU = ("--device", "cpu")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("script", ["DualScaleNet/main.py", "DownStream/train.py"])
def test_killed_at_random_moments(script, tmp_path):
    assert faults.kill_and_resume(script, 2, 3, tmp_path)["kills survived"] == 2


class Killed(BaseException):
    """As the end of a process: nothing catches it."""


@pytest.mark.parametrize("name", ["pretraining", "segmentation"])
def test_killed_between_the_files_of_the_last_save(name, trees, tmp_path, monkeypatch):
    module, _, options = case(name, trees, tmp_path)
    run, whole, replace, written = tmp_path / "run", tmp_path / "whole", os.replace, list[str]()
    call(monkeypatch, module, *options, "--epochs", 1, *CPU)
    shutil.copytree(run, tmp_path / "begun")
    monkeypatch.setattr(os, "replace", lambda old, new: written.append(Path(new).name) or replace(old, new))
    call(monkeypatch, module, *options, "--epochs", 2, *CPU)
    run.rename(whole)
    for left in range(len(written)):
        shutil.copytree(tmp_path / "begun", run)
        count = 0

        def killed(old: Path, new: Path, left: int = left) -> None:
            nonlocal count
            if count == left:
                raise Killed
            count += 1
            replace(old, new)

        monkeypatch.setattr(os, "replace", killed)
        with pytest.raises(Killed):
            call(monkeypatch, module, *options, "--epochs", 2, *CPU)
        monkeypatch.setattr(os, "replace", replace)
        call(monkeypatch, module, *options, "--epochs", 2, *CPU)
        faults.same_end(whole, run, name)
        shutil.rmtree(run)
    assert written[-1] == "last.pth"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_mutated_images(tmp_path):
    figures = faults.mutate_images(500, tmp_path)
    assert figures["read"] > 100 and figures["refused"] > 100


def test_mutated_checkpoints(tmp_path):
    figures = faults.mutate_checkpoints(300, tmp_path)
    assert figures["refused"] > 100


def test_disk_faults(tmp_path):
    assert faults.disk_faults(tmp_path)["faults"] == 6


def test_senseless_options(tmp_path):
    figures = faults.fuzz_options(40, tmp_path)
    assert figures["usage"] > 20 and figures["failure"] > 0


# --- images that no decoder minds


def test_a_decompression_bomb_is_named(tmp_path):
    Image.new("1", (40_000, 40_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match=r"cannot read .*bomb\.png \(Image size \(1600000000 pixels\) exceeds.*replace"):
        read_image(tmp_path / "bomb.png")


def test_of_a_moving_picture_the_first_frame_is_read(tmp_path):
    first, second = (Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in (10, 200))
    for name in ("a.gif", "a.png", "a.webp"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
        assert np.abs(read_image(tmp_path / name).astype(int) - 10).max() <= 2


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    """Root may read everything: the system's answer is put in its mouth."""
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match=r"cannot read .*a\.png \(Permission denied\): replace or remove it"):
        read_image(tmp_path / "a.png")


def test_names_that_are_no_text_are_predicted_and_listed(trained, tmp_path, capsys, monkeypatch):
    (tmp_path / "mine").mkdir()
    name = Path(os.fsdecode(os.fsencode(tmp_path / "mine") + b"/a\xff\nb.png"))
    Image.new("RGB", (64, 64), (200, 90, 20)).save(name)
    options = ("--checkpoint", trained / "last.pth", "--images", tmp_path / "mine", "--out", tmp_path)
    call(monkeypatch, predict, *options, *CPU)
    assert [row["image"] for row in rows(tmp_path / "summary.csv")] == ["a\\udcff\nb"]
    assert (tmp_path / "mask" / name.name).exists()


# --- numbers


def test_two_photographs_are_enough_to_pretrain_and_one_to_segment(tmp_path):
    write_ddr(tmp_path, 2, 0, 0, (128, 112), seed=0)
    write_drive(tmp_path, 1, 0, (150, 140), seed=0)
    pretrain(tmp_path / "ddr_757", tmp_path / "pretrain", "--epochs", 1, "--batch-size", 2)
    options = ("--encoder", "random", "--epochs", 1)
    stderr = train(tmp_path / "DRIVE", tmp_path / "segment", *options, code=1).stderr
    assert "no photograph is left for training: lower --val-fraction" in stderr
    train(tmp_path / "DRIVE", tmp_path / "segment", *options, "--val-fraction", 0)
    assert (tmp_path / "segment" / "last.pth").exists()


def poison(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: int) -> None:
    """The function's images are no numbers, once."""
    original, calls = getattr(module, name), []

    def poisoned(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        result = original(*arguments, **more)
        images = result[0] if isinstance(result, tuple) else result
        images[:] = images if len(calls) != call else torch.nan
        return result

    monkeypatch.setattr(module, name, poisoned)


CASES = {
    "pretraining": (
        pretraining, pretraining_run, "global_views",
        "--data ddr_757 --image-size 96 --batch-size 4 --cache cache",
    ),
    "segmentation": (
        segmentation, segmentation_run, "training_batch",
        "--data-dir DRIVE --encoder random --crop 64 --batch-size 2 --schedule constant",
    ),
}


def case(name: str, trees: Path, tmp_path: Path) -> tuple[Any, tuple[Any, str], list[str]]:
    """A script, a function that it calls for each batch (module and name), and options."""
    module, run, function, options = CASES[name]
    places = {"ddr_757": str(trees / "ddr_757"), "DRIVE": str(trees / "DRIVE"), "cache": str(tmp_path / "cache")}
    words = [places.get(word, word) for word in options.split()]
    return module, (run, function), [*words, "--run-dir", str(tmp_path / "run")]


@pytest.mark.parametrize("name", CASES)
def test_a_loss_that_is_no_number_stops_with_the_files_and_keeps_the_state_before(name, trees, tmp_path, monkeypatch):
    module, function, options = case(name, trees, tmp_path)
    poison(monkeypatch, *function, 2)
    with pytest.raises(UserError) as stop:
        call(monkeypatch, module, *options, "--epochs", 2, "--save-minutes", 0, *CPU)
    message = str(stop.value)
    assert message.startswith("the loss of step 2 of epoch 1 is nan (") and message.count(str(trees)) in (2, 4)
    assert "lower --lr or use --precision float32, then continue with --resume force" in message
    assert "or skip such batches with --non-finite skip" in message
    content = load_checkpoint(tmp_path / "run" / "last.pth", name)
    assert (content["epoch"], content["step"]) == (0, 1)
    assert all(value.isfinite().all() for value in content["model"].values())

    monkeypatch.undo()  # the same command resumes it
    call(monkeypatch, module, *options, "--epochs", 2, *CPU)
    assert [row["skipped"] for row in rows(tmp_path / "run" / "log.csv")] == ["0", "0"]


@pytest.mark.parametrize("name", CASES)
def test_such_a_batch_is_skipped_and_counted_if_asked(name, trees, tmp_path, monkeypatch, capsys):
    module, function, options = case(name, trees, tmp_path)
    poison(monkeypatch, *function, 2)
    call(monkeypatch, module, *options, "--epochs", 2, "--non-finite", "skip", *CPU)
    assert [row["skipped"] for row in rows(tmp_path / "run" / "log.csv")] == ["1", "0"]
    assert "warning: the loss of step 2 of epoch 1 is nan (" in capsys.readouterr().err
    content = load_checkpoint(tmp_path / "run" / "last.pth", name)
    assert all(value.isfinite().all() for value in content["model"].values())


class AnyRun(Run):
    """A run of no script."""

    def files_of(self, epoch: int, step: int) -> list[Path]:
        return []

    def description(self) -> dict[str, Any]:
        return {}


def test_weights_that_are_no_numbers_are_refused():
    model = torch.nn.Linear(2, 2)
    options = Namespace(run_dir=Path(), precision="float32")
    run = AnyRun(options, model, torch.optim.Adam(model.parameters()), 5)
    run.start_at(Position(3))
    run.refuse_broken_weights()
    model.bias.data[1] = torch.inf
    for position, when in ((Position(3), "epoch 3"), (Position(3, 2), "step 2 of epoch 4")):
        run.start_at(position)
        with pytest.raises(UserError, match=f"weights are no longer finite after {when}: lower --lr"):
            run.refuse_broken_weights()


@pytest.mark.parametrize("name", CASES)
def test_weights_that_are_no_numbers_are_never_saved(name, trees, tmp_path, monkeypatch):
    module, _, options = case(name, trees, tmp_path)
    call(monkeypatch, module, *options, "--epochs", 1, *CPU)
    before = (tmp_path / "run" / "last.pth").read_bytes()
    step = torch.optim.Adam.step

    def broken(optimizer: torch.optim.Adam) -> None:
        step(optimizer)
        optimizer.param_groups[0]["params"][0].data.fill_(torch.nan)

    monkeypatch.setattr(torch.optim.Adam, "step", broken)
    with pytest.raises(UserError, match="weights are no longer finite after step 1 of epoch 2"):
        call(monkeypatch, module, *options, "--epochs", 2, *CPU)
    assert (tmp_path / "run" / "last.pth").read_bytes() == before


# --- runs


def test_another_number_of_photographs_is_refused_by_name(tmp_path):
    faults.write_trees(tmp_path)
    pretrain(tmp_path / "ddr_757", tmp_path / "run", "--epochs", 1)
    next((tmp_path / "ddr_757" / "train").rglob("*.jpg")).write_bytes(b"")
    stderr = pretrain(tmp_path / "ddr_757", tmp_path / "run", "--epochs", 2, "--max-bad", 0.2, code=1).stderr
    assert "(the file is empty): replace or remove it" in stderr
    assert "began with 10 photographs, now there are 9" in stderr and "--resume force" in stderr


def test_what_cannot_go_on_even_if_forced(trees, tmp_path, monkeypatch):
    module, _, options = case("pretraining", trees, tmp_path)
    call(monkeypatch, module, *options, "--epochs", 1, *CPU)
    with pytest.raises(UserError, match=r"the model in .*last\.pth does not fit: .*of another shape \(encoder\.conv1"):
        call(monkeypatch, module, *options, "--epochs", 2, "--arch", "resnet18", "--resume", "force", *CPU)


def test_an_encoder_that_changed_under_a_frozen_run_is_refused(trees, tmp_path, monkeypatch):
    module, _, options = case("segmentation", trees, tmp_path)
    path = tmp_path / "encoder.pth"
    options[options.index("random")] = str(path)
    for epochs in (1, 2):  # pretraining goes on meanwhile
        torch.manual_seed(epochs)
        save_encoder(path, Encoder("resnet18"), "paper", epochs, 10)
        if epochs == 1:
            call(monkeypatch, module, *options, "--epochs", 1, *CPU)
    with pytest.raises(UserError, match=r"encoder\.pth is no longer the encoder that .*run began with: start"):
        call(monkeypatch, module, *options, "--epochs", 2, *CPU)
    call(monkeypatch, module, *options, "--epochs", 2, "--resume", "force", *CPU)
    trained = load_checkpoint(tmp_path / "run" / "last.pth", "segmentation")["model"]
    torch.manual_seed(1)
    assert torch.equal(trained["encoder.conv1.weight"], Encoder("resnet18").conv1.weight)


def test_a_run_folder_belongs_to_one_process(trees, tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        for refused in (
            pretrain(trees / "ddr_757", tmp_path / "run", code=1),
            train(trees / "DRIVE", tmp_path / "run", "--encoder", "random", code=1),
        ):
            assert f"{tmp_path / 'run'} is in use by another process: let it end, or choose another" in refused.stderr
    claim(tmp_path / "run")  # free again


def test_out_of_memory_says_what_to_lower(monkeypatch, capsys):
    def greedy() -> None:
        torch.empty(1 << 60)

    def greedy_gpu() -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    for main in (greedy, greedy_gpu):
        with pytest.raises(SystemExit) as end:
            run_script(main, "lower --batch-size")
        assert "error: out of memory: lower --batch-size, and repeat the command" in str(end.value)
    with pytest.raises(RuntimeError, match="else"):
        run_script(lambda: (_ for _ in ()).throw(RuntimeError("something else")))


def test_a_second_signal_counts_only_after_a_while(monkeypatch):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    now, left = [0.0], []
    monkeypatch.setattr(script.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(script.os, "_exit", left.append)
    try:
        stop = StopSignal()
        os.kill(os.getpid(), signal.SIGINT)
        now[0] = 0.5  # torchrun passes on what a terminal has sent to all
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGINT and not left
        now[0] = 1.5
        os.kill(os.getpid(), signal.SIGTERM)
        assert left == [128 + signal.SIGTERM]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


# --- several processes


def torchrun(*arguments: object) -> subprocess.Popen:
    """Two processes of main.py, in a process group of their own as from a terminal."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*command, str(ROOT / "DualScaleNet" / "main.py"), *map(str, arguments)], text=True, start_new_session=True,
        env={**faults.ENVIRONMENT, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(trees, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("torchrun")
    process = torchrun(*faults.small_run("DualScaleNet/main.py", trees, folder, folder / "run", 2))
    assert process.wait(300) == 0
    return folder / "run"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_under_torchrun(number, trees, undisturbed, tmp_path):
    arguments = faults.small_run("DualScaleNet/main.py", trees, tmp_path, tmp_path / "run", 2)
    process = torchrun(*arguments)
    while not (tmp_path / "run" / "last.pth").exists() and process.poll() is None:
        time.sleep(0.01)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # Ctrl-C reaches all of them, and torchrun passes it on besides
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0 and "the same command resumes it" in err, err
    with pytest.raises(ProcessLookupError):  # nobody is left
        os.killpg(process.pid, 0)
    assert not list((tmp_path / "run").glob(".*.tmp*"))
    content = load_checkpoint(tmp_path / "run" / "last.pth", "pretraining")
    assert (content["epoch"], content["step"]) < (2, 0)
    assert torchrun(*arguments).wait(300) == 0
    faults.same_end(undisturbed, tmp_path / "run", "pretraining")
