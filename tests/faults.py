"""What befalls runs and files, done on purpose: kills, mutations, full disks, senseless options.

    python tests/faults.py        # the long form, `make stress`: prints its figures, exit code 1 if anything was lost

tests/test_faults.py calls the same with small numbers.
"""

import contextlib
import csv
import hashlib
import io
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT))

from Dataset.synthetic import write_ddr, write_drive  # noqa: E402
from DownStream import predict, train  # noqa: E402
from DownStream.masks import read_mask  # noqa: E402
from DownStream.sets.base import Label  # noqa: E402
from DualScaleNet import main as pretraining  # noqa: E402
from DualScaleNet.common.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from DualScaleNet.common.files import is_turned, read_drawing, read_image  # noqa: E402
from DualScaleNet.common.script import UserError, run_script  # noqa: E402
from DualScaleNet.encoder import Encoder, load_encoder, save_encoder  # noqa: E402

ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}


class LostError(AssertionError):
    """Something was lost, or something wrong was taken for right."""


def start(
    script: str, *arguments: object, preexec_fn: Callable[[], None] | None = None, start_new_session: bool = False
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=preexec_fn,
        start_new_session=start_new_session,
    )  # fmt: skip


def finish(process: subprocess.Popen, code: int = 0) -> str:
    """Its stderr."""
    _, err = process.communicate(timeout=900)
    if process.returncode != code or "Traceback" in err:
        raise LostError(f"exit code {process.returncode} instead of {code}: {err}")
    return err


# Kills


def write_trees(folder: Path) -> None:
    write_ddr(folder, 6, 2, 4, (128, 112), seed=0)
    write_drive(folder, 6, 2, (150, 140), seed=0)


def small_run(script: str, data: Path, folder: Path, run: Path, epochs: int) -> tuple[object, ...]:
    """The arguments of a run of two or three steps an epoch, saved after each."""
    common = ("--run-dir", run, "--epochs", epochs, "--save-minutes", 0)
    if script == "DualScaleNet/main.py":
        return ("--data", data / "ddr_757", "--image-size", 96, "--batch-size", 4, "--cache", folder / "cache", *common)
    options = ("--encoder", "random", "--crop", 64, "--batch-size", 2, "--val-every", 2)
    return ("--data-dir", data / "DRIVE", *options, *common)


def kill_and_resume(script: str, kills: int, epochs: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """Kills a run at random moments, starts it again each time, and compares its end with an undisturbed one's.

    Only processes that a kill has ended count; a run that comes to its end is compared, and begun anew.

    Raises:
        LostError: a start failed, or a tensor, a row of the log or the encoder's file differs.
    """
    write_trees(folder)
    rng = np.random.default_rng(seed)
    whole, broken = folder / "whole", folder / "broken"
    started = time.monotonic()
    finish(start(script, *small_run(script, folder, folder, whole, epochs)))
    alone = time.monotonic() - started
    killed, compared = 0, 1
    while killed < kills:
        process = start(script, *small_run(script, folder, folder, broken, epochs))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 2.5 * alone / epochs + 6))
        process.kill()
        _, err = process.communicate()
        if process.returncode not in (0, -signal.SIGKILL) or "Traceback" in err:
            raise LostError(err)
        if process.returncode == 0:  # it was done before the kill: another one
            same_end(whole, broken, kind_of(script))
            shutil.rmtree(broken)
            compared += 1
            continue
        killed += 1
        if (broken / "last.pth").exists():
            load_checkpoint(broken / "last.pth", kind_of(script))
    finish(start(script, *small_run(script, folder, folder, broken, epochs)))
    same_end(whole, broken, kind_of(script))
    return {"kills survived": killed, "runs compared": compared}


def kind_of(script: str) -> str:
    return "pretraining" if script == "DualScaleNet/main.py" else "segmentation"


def same_end(whole: Path, other: Path, kind: str) -> None:
    """Weights, optimiser, log and exported encoder are the same bit for bit; only the speed may differ.

    Raises:
        LostError: they are not.
    """
    first, second = (load_checkpoint(run / "last.pth", kind) for run in (whole, other))
    for content in (first, second):
        content.pop("began", None)
        for place in ("data", "run_dir", "cache"):
            content["options"].pop(place, None)
        for row in content["log"]:
            row.pop("images_per_second")
    if difference := list(differences(first, second, "last.pth")):
        raise LostError(f"differ: {', '.join(difference)}")
    logs = []
    for run in (whole, other):
        with open(run / "log.csv", newline="") as file:
            logs.append([{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(file)])
    if logs[0] != logs[1]:
        raise LostError("the logs differ")
    if kind == "pretraining":
        first, second = (load_encoder(run / "encoder.pth")[0].state_dict() for run in (whole, other))
        if list(differences(first, second, "encoder.pth")):
            raise LostError("the encoders differ")


def differences(a: object, b: object, name: str) -> Iterator[str]:
    """Names of what differs between two nests of plain values and tensors."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if not torch.equal(a, b):
            yield name
    elif isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for key in a:
            yield from differences(a[key], b[key], f"{name}/{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{name}/{k}")
    elif a != b:
        yield name


# Mutations


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut off, put in, zeroed, or doubled; most changes in the first kilobyte, where headers are."""
    data = bytearray(content)

    def place() -> int:
        return int(rng.integers(len(data) if rng.random() < 0.5 else min(len(data), 1024)))

    for _ in range(int(rng.integers(1, 5))):
        if not data:
            break
        at, length = place(), int(rng.integers(1, 64))
        kind = rng.integers(6)
        if kind <= 1:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[at : at + length] = rng.bytes(length)
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            data[at:at] = data[at : at + length]
        else:
            data[at : at + length] = bytes(length)
    return bytes(data)


def image_seeds(folder: Path) -> list[Path]:
    """An image of every kind that is read, synthetic, and some real ones where there are any."""
    rng = np.random.default_rng(0)
    eye = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 1 << 16, (40, 60), np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [eye.rotate(90), eye.rotate(180)]}
    pictures: dict[str, tuple[Image.Image, dict]] = {
        "a.jpg": (eye, {"exif": exif}), "cmyk.jpg": (eye.convert("CMYK"), {}), "grey.jpg": (eye.convert("L"), {}),
        "progressive.jpg": (eye, {"progressive": True}), "a.png": (eye, {}), "palette.png": (eye.quantize(16), {}),
        "alpha.png": (eye.convert("RGBA"), {}), "deep.png": (deep, {}), "bits.png": (eye.convert("1"), {}),
        "moving.png": (eye, frames), "a.tif": (eye, {}), "lzw.tif": (eye, {"compression": "tiff_lzw"}),
        "deep.tif": (deep, {}), "jpeg.tif": (eye, {"compression": "jpeg"}), "a.bmp": (eye, {}), "a.ppm": (eye, {}),
        "a.gif": (eye.quantize(8), {}), "moving.gif": (eye, frames), "a.webp": (eye, {}), "moving.webp": (eye, frames),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (picture, options) in pictures.items():
        picture.save(folder / name, **options)
        paths.append(folder / name)
    if REAL.exists():
        for pattern in ("DRIVE/training/images/2[12]*", "DRIVE/training/1st_manual/2[12]*", "DRIVE/training/mask/21*"):
            paths += sorted(REAL.glob(pattern))
    return paths


def mutate_images(count: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """Reads mutated images with every reader: a result, or our own error.

    Raises:
        LostError: another exception.
    """
    rng, read, refused = np.random.default_rng(seed), 0, 0
    seeds = [(path.name, path.read_bytes()) for path in image_seeds(folder / "seeds")]
    readers: list[Callable[[Path], object]] = [
        read_image, lambda path: read_image(path, "L"), lambda path: read_image(path, "I"), read_drawing, is_turned,
        lambda path: read_mask(Label(path)),
    ]  # fmt: skip
    for k, reader in itertools.product(range(count), readers):
        name, content = seeds[k % len(seeds)]
        path = folder / f"mutated-{name}"
        if reader is readers[0]:
            path.write_bytes(mutated(content, rng))
        with libraries_silenced():
            found = attempt(reader, path)
        read, refused = read + (found is not None), refused + (found is None)
    return {"files": count, "real": sum(str(REAL) in str(path) for path in image_seeds(folder / "seeds")),
            "read": read, "refused": refused}  # fmt: skip


def attempt(read: Callable[[Path], object], path: Path) -> object | None:
    """What a reader makes of a file, None if it refuses it by name.

    Raises:
        LostError: another exception, or the file is not named.
    """
    try:
        return read(path)
    except UserError as error:
        if str(path) not in str(error):
            raise LostError(f"does not name its file: {error}") from error
        return None
    except BaseException as error:
        kept = shutil.copy(path, Path(tempfile.gettempdir()) / f"lost-{path.name}")
        raise LostError(f"{kept}: {error!r}\n{traceback.format_exc()}") from error


@contextlib.contextmanager
def libraries_silenced() -> Iterator[None]:
    """libtiff complains on the process's stderr, past Python."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def mutate_checkpoints(count: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """Loads mutated checkpoints: our own error, or exactly what was saved.

    Raises:
        LostError: another exception, or other content.
    """
    rng, intact, refused = np.random.default_rng(seed), 0, 0
    folder.mkdir(parents=True, exist_ok=True)
    content = {"weight": torch.arange(500.0), "nested": {"a": [1, 2.5, None, "text"], "b": torch.eye(9)}, "epoch": 7}
    save_checkpoint(folder / "small.pth", "test", content)
    torch.manual_seed(0)
    save_encoder(folder / "encoder.pth", Encoder("resnet18"), "paper", 3, 10)
    cases: list[tuple[str, Callable[[Path], object]]] = [
        ("small.pth", lambda path: load_checkpoint(path, "test")),
        ("encoder.pth", lambda path: [load_encoder(path)[0].state_dict(), load_encoder(path)[1]]),
    ]
    originals = [((folder / name).read_bytes(), load(folder / name)) for name, load in cases]
    for k in range(count):
        which = int(k % 50 == 0)  # the real encoder now and then: it is large
        (name, load), (whole, expected) = cases[which], originals[which]
        path = folder / f"mutated-{name}"
        path.write_bytes(mutated(whole, rng))
        found = attempt(load, path)
        if found is None:
            refused += 1
        elif difference := list(differences(expected, found, name)):
            raise LostError(f"mutation {k} loads as something else: {', '.join(difference)}")
        else:
            intact += 1  # what was changed carries nothing, such as padding
    return {"files": count, "refused": refused, "loaded unharmed": intact}


# Disks


def disk_faults(folder: Path) -> dict[str, int]:
    """Real refusals by the system while the scripts write: files limited in size, /dev/full, places one cannot write.

    Raises:
        LostError: no clear line, something half-written, or the run does not end like an undisturbed one.
    """
    write_trees(folder)
    script, faults = "DualScaleNet/main.py", 0
    whole, run = folder / "whole", folder / "run"
    finish(start(script, *small_run(script, folder, folder, whole, 2)))
    finish(start(script, *small_run(script, folder, folder, run, 1)))

    def limited(kilobytes: int) -> Callable[[], None]:
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, kilobytes << 10))

    def refused(err: str, *texts: str) -> None:
        if not all(text in err for text in (*texts, "run it again")) or err.count("\n") != 1:
            raise LostError(f"unclear: {err}")

    # The checkpoint no longer fits, at its beginning or in the middle; nor does a write to a full device.
    before = digest(run / "last.pth")
    for kilobytes in (500, 40_000):
        process = start(script, *small_run(script, folder, folder, run, 2), preexec_fn=limited(kilobytes))
        refused(finish(process, code=1), "cannot write", str(run))
        faults += 1
    (run / ".last.tmp.pth").symlink_to("/dev/full")
    process = start(script, *small_run(script, folder, folder, run, 2))
    refused(finish(process, code=1), f"cannot write {run / 'last.pth'}")
    faults += 1
    if digest(run / "last.pth") != before or list(run.glob(".*.tmp*")):
        raise LostError("the old checkpoint is gone, or half a new one is there")
    finish(start(script, *small_run(script, folder, folder, run, 2)))
    same_end(whole, run, "pretraining")

    # The log on a full device; places where nothing can be written.
    (folder / "full").mkdir()
    (folder / "full" / ".args.tmp.json").symlink_to("/dev/full")
    (folder / "file").touch()
    for place in (folder / "full", folder / "file" / "run", Path("/proc/run")):
        refused(finish(start(script, *small_run(script, folder, folder, place, 1)), code=1), "cannot write", str(place))
        faults += 1
    return {"faults": faults}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Options


SCRIPTS = {"main.py": pretraining, "train.py": train, "predict.py": predict}


def option_names(module: ModuleType) -> list[str]:
    """All options of a script, from its own help."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit), mock.patch.object(sys, "argv", ["x", "-h"]):
        module.parse_args()
    return sorted({word.rstrip(",]") for word in text.getvalue().replace("[", " ").split() if word.startswith("--")})


VALUES = st.one_of(
    st.sampled_from("0 -1 1 2 1e309 nan inf -0 0.5 1e-300 99999999999999999999 auto never random paper drive".split()),
    st.sampled_from(["cpu", "cuda:99", "nowhere", "/", "/dev/null", "--", "@x", "", " ", "\n"]),
    st.integers().map(str), st.floats().map(str), st.text(max_size=12),
)  # fmt: skip


def fuzz_options(examples: int, folder: Path) -> dict[str, int]:
    """Senseless command lines: every script ends with exit code 0, 1 or 2, one line, and no traceback.

    The data are nowhere, so that nothing can begin.

    Raises:
        LostError: another end.
    """
    ends = {0: 0, 1: 0, 2: 0}

    def once(arguments: list[str], name: str) -> None:
        err, code = io.StringIO(), 0
        nowhere = {"main.py": "data", "train.py": "data-dir", "predict.py": "checkpoint"}[name]
        argv = [name, *arguments, f"--{nowhere}", str(folder / "nowhere"), "--device=cpu"]
        out = io.TextIOWrapper(io.BytesIO())
        with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                run_script(SCRIPTS[name].main)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
                text = end.code if isinstance(end.code, str) else err.getvalue()
                if code == 1 and text.count("\n"):
                    raise LostError(f"{argv}: more than a line: {text}") from end
            except BaseException as error:
                raise LostError(f"{argv}: {error!r}\n{traceback.format_exc()}") from error
        ends[code] += 1

    for name, module in SCRIPTS.items():
        names = st.sampled_from(option_names(module))
        pairs = st.lists(st.tuples(names, VALUES).map(list) | names.map(lambda each: [each]), max_size=6)
        lines = pairs.map(lambda parts: [word for part in parts for word in part])
        fuzz = given(arguments=lines, name=st.just(name))(once)
        settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))(fuzz)()
    return {"command lines": sum(ends.values()), "usage": ends[2], "failure": ends[1], "help": ends[0]}


def main() -> None:
    warnings.filterwarnings("ignore", module="PIL")
    parts: dict[str, Callable[[Path], dict[str, int]]] = {
        "kill -9, pretraining": lambda folder: kill_and_resume("DualScaleNet/main.py", 30, 20, folder),
        "kill -9, segmentation": lambda folder: kill_and_resume("DownStream/train.py", 30, 20, folder),
        "mutated images": lambda folder: mutate_images(20_000, folder),
        "mutated checkpoints": lambda folder: mutate_checkpoints(10_000, folder),
        "disk faults": disk_faults,
        "senseless options": lambda folder: fuzz_options(2000, folder),
    }
    failed = False
    for name, part in parts.items():
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                figures = ", ".join(f"{count:,} {what}" for what, count in part(Path(folder)).items())
            except LostError as error:
                figures, failed = f"LOST: {error}", True
        print(f"{name}: {figures} ({time.monotonic() - started:.0f} s)", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
