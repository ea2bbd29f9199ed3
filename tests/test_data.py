"""Finding, decoding and caching unlabelled photographs."""

import errno
import os
import shutil
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from DualScaleNet.common.files import read_image, replacing
from DualScaleNet.common.photographs import find_duplicates, find_photographs
from DualScaleNet.common.processes import Processes
from DualScaleNet.common.resume import resume
from DualScaleNet.common.run import Position
from DualScaleNet.common.script import UserError
from DualScaleNet.data import batches, load_photographs
from DualScaleNet.model import DualScaleNet
from DualScaleNet.pretrain import Pretraining, open_photographs


def photograph(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)
    return path


def names(found: list[Path]) -> list[str]:
    return [path.name for path in found]


def test_ddr_splits_are_read_together_and_labels_are_not(tmp_path):
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for i in range(count):
            photograph(tmp_path / split / "img" / f"{split}{i}.jpg")
    photograph(tmp_path / "train" / "label" / "train0.png")
    photographs, counts, _ = find_photographs([tmp_path], ["train", "test"])
    assert names(photographs) == ["test0.jpg", "train0.jpg", "train1.jpg", "train2.jpg"]
    assert counts == {"train": 3, "val": 2, "test": 1}
    assert len(find_photographs([tmp_path], ["train", "val", "test"])[0]) == 6


def test_the_release_tree_and_nested_folders(tmp_path):
    photograph(tmp_path / "DDR-dataset" / "lesion_segmentation" / "valid" / "image" / "a.jpg")
    photograph(tmp_path / "DDR-dataset" / "lesion_segmentation" / "train" / "image" / "b.jpg")
    photograph(tmp_path / "more" / "deep" / "down" / "C D.JPEG")
    photograph(tmp_path / "more" / ".hidden.jpg")
    photograph(tmp_path / ".cache" / "x.jpg")
    photograph(tmp_path / "DDR-dataset" / "lesion_segmentation" / "valid" / "segmentation label" / "EX" / "a.tif")
    (tmp_path / "more" / "Thumbs.db").write_bytes(b"no image")
    photographs, counts, _ = find_photographs([tmp_path], ["train"])
    assert names(photographs) == ["b.jpg", "C D.JPEG"]
    assert counts == {"val": 1, "train": 1, "": 1}
    several = [tmp_path / "more", tmp_path / "DDR-dataset"]
    assert names(find_photographs(several, ["train", "val"])[0]) == ["C D.JPEG", "b.jpg", "a.jpg"]


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_photographs([tmp_path / "nowhere"], ["train"])
    photograph(tmp_path / "val" / "a.jpg")
    with pytest.raises(UserError, match="no photographs of the splits train, test in"):
        find_photographs([tmp_path], ["train", "test"])


def test_decoded_once_and_again_when_the_source_changes(tmp_path):
    paths = [photograph(tmp_path / f"{i}.png", (60, 50), i) for i in range(3)]
    cache = tmp_path / "cache"
    first = load_photographs(paths, 16, True, cache).array
    assert first.shape == (3, 16, 16, 3) and first.dtype == np.uint8
    for path, row in zip(paths, first, strict=True):
        assert np.array_equal(row, np.asarray(Image.open(path).resize((16, 16), Image.Resampling.BILINEAR)))
    (file,) = cache.glob("*.npy")
    written = file.stat().st_mtime_ns
    load_photographs(paths, 16, True, cache)
    assert file.stat().st_mtime_ns == written and len(list(cache.glob("*.npy"))) == 1

    photograph(paths[1], (60, 50), seed=9)
    changed = load_photographs(paths, 16, True, cache).array
    assert np.array_equal(changed[[0, 2]], first[[0, 2]]) and not np.array_equal(changed[1], first[1])


def test_plain_resizing_aliases_and_is_kept_apart(tmp_path):
    """One-pixel stripes average to grey when antialiased, and survive as stripes when not."""
    stripes = np.full((64, 64, 3), 1, np.uint8)
    stripes[:, ::4] = 254
    Image.fromarray(stripes).save(tmp_path / "a.png")
    smooth = load_photographs([tmp_path / "a.png"], 16, True, tmp_path / "cache").array
    plain = load_photographs([tmp_path / "a.png"], 16, False, tmp_path / "cache").array
    assert smooth[0, 4:-4, 4:-4].std() < 3 and abs(smooth[0, 4:-4, 4:-4].mean() - 64) < 10
    assert abs(plain[0].mean() - 64) > 50
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_unreadable_photographs_are_named_and_left_out_up_to_a_share(tmp_path):
    good = [photograph(tmp_path / f"{name}.jpg", (40, 30), seed) for seed, name in enumerate("acd")]
    bad = photograph(tmp_path / "b.jpg", (400, 300))
    whole = bad.read_bytes()
    bad.write_bytes(whole[:5000])
    paths, cache = [good[0], bad, *good[1:]], tmp_path / "cache"
    for max_bad in (0.0, 0.2):
        with pytest.raises(UserError, match=rf"cannot read .*b\.jpg .*remove it; more than --max-bad {max_bad:g} of 4"):
            load_photographs(paths, 16, True, cache, max_bad)
        assert not list(cache.glob("*.npy")) and not list(cache.glob(".*"))
    expected = load_photographs(good, 16, True, cache).array
    for _ in range(2):  # decoded, and from the cache
        found = load_photographs(paths, 16, True, cache, 0.25)
        assert np.array_equal(found.array, expected) and found.paths == good
        assert list(found.unreadable) == [bad] and "b.jpg" in found.unreadable[bad]
        with pytest.raises(UserError, match="more than --max-bad 0 of 4"):
            load_photographs(paths, 16, True, cache)
    twice = load_photographs([*paths, bad, good[0]], 16, True, cache, 0.5)
    assert np.array_equal(twice.array, np.concatenate([expected, expected[:1]])) and twice.paths == [*good, good[0]]
    bad.write_bytes(whole)
    assert len(load_photographs(paths, 16, True, cache).array) == 4
    bad.write_bytes(b"")
    with pytest.raises(UserError, match=r"the file is empty.*more than --max-bad 0\.9 of 1"):
        load_photographs([bad], 16, True, cache, 0.9)


def test_a_list_of_bad_ones_that_can_be_read_again_is_no_more_believed(tmp_path):
    """A file that could not be read for a while, with no other size and time: on a network's disk, say."""
    paths = [photograph(tmp_path / f"{name}.png", (40, 30), seed) for seed, name in enumerate("ab")]
    hidden = paths[0].read_bytes()
    status = paths[0].stat()
    paths[0].write_bytes(bytes(len(hidden)))
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load_photographs(paths, 16, True, tmp_path / "cache", 0.5).paths == paths[1:]
    paths[0].write_bytes(hidden)
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    found = load_photographs(paths, 16, True, tmp_path / "cache", 0.5)
    assert found.paths == paths and len(found.array) == 2 and not found.unreadable


def test_odd_files_of_a_folder(tmp_path):
    """Links that loop, a link to nowhere, line breaks and no text in names, a folder that is linked in."""
    elsewhere = photograph(tmp_path / "elsewhere" / "far.png").parent
    mine = tmp_path / "mine"
    first = photograph(mine / "a\nb.png")
    second = Path(os.fsdecode(os.fsencode(mine) + b"/\xff\xfe.png"))
    second.write_bytes(first.read_bytes())
    (mine / "again").symlink_to(mine)
    (mine / "far").symlink_to(elsewhere)
    (mine / "gone.png").symlink_to(mine / "nowhere.png")
    (mine / "loop.png").symlink_to(mine / "loop.png")
    paths = find_photographs([mine], ["train"]).photographs
    found = load_photographs(paths, 16, True, tmp_path / "cache", 0.9)
    assert sorted(found.paths) == sorted([first, second, mine / "far" / "far.png"])
    assert sorted(found.unreadable) == [mine / "gone.png", mine / "loop.png"]
    assert "no such file" in found.unreadable[mine / "gone.png"]
    assert "symbolic links" in found.unreadable[mine / "loop.png"]


def test_photographs_are_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (40, 20, 3)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_second_process_waits_for_the_first_ones_cache(tmp_path):
    paths = [photograph(tmp_path / f"{i}.png", (60, 50), i) for i in range(3)]
    with ThreadPoolExecutor() as pool:  # the lock does not tell threads from processes
        found = list(pool.map(lambda _: load_photographs(paths, 16, True, tmp_path / "cache"), range(4)))
    assert all(np.array_equal(each.array, found[0].array) for each in found)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1 and not list((tmp_path / "cache").glob(".*"))


def test_duplicates_are_files_of_the_same_content(tmp_path):
    a, b = (tmp_path / name for name in ("a.ppm", "b.ppm"))
    content = bytearray(np.random.default_rng(0).integers(0, 256, 300_000, np.uint8))
    a.write_bytes(content)
    b.write_bytes(content)
    for name, position in (("first.ppm", 0), ("middle.ppm", 150_000), ("last.ppm", -1)):
        other = content.copy()
        other[position] ^= 1
        (tmp_path / name).write_bytes(other)
    (tmp_path / "short.ppm").write_bytes(content[:-1])
    (tmp_path / "empty 1.ppm").touch()
    (tmp_path / "empty 2.ppm").touch()
    (tmp_path / "gone.ppm").symlink_to(tmp_path / "nowhere")
    copy = photograph(tmp_path / "more" / "c.png")
    copies = [copy, *(Path(shutil.copy(copy, copy.with_name(name))) for name in ("d.png", "e.png"))]
    paths = [copies[0], *sorted(tmp_path.glob("*.ppm")), *copies[1:]]
    assert find_duplicates(paths) == [copies, [a, b]]
    assert find_duplicates([a, a]) == [[a, a]]  # read twice, through two of the folders given
    assert find_duplicates([]) == []


def test_pretraining_says_that_photographs_occur_twice(tmp_path, capsys):
    mine = tmp_path / "mine"
    first = photograph(mine / "train" / "a.png")
    second = mine / "test" / "b.png"
    options = {"recipe": "paper", "image_size": 16, "cache": tmp_path / "cache", "max_bad": 0}
    args = Namespace(data=[mine], splits=["train", "test"], **options)
    photograph(second, seed=1)
    assert len(open_photographs(args, Processes()).array) == 2 and capsys.readouterr().out == ""
    shutil.copy(first, second)
    assert len(open_photographs(args, Processes()).array) == 2
    expected = f"photographs that occur more than once: 1, e.g. {second} and {first}; each copy counts\n"
    assert capsys.readouterr().out == expected


def test_each_part_of_an_accumulated_batch_is_drawn_at_random(tmp_path):
    """Not the first photographs into the first part: BatchNorm would see one folder, or camera, in each."""
    model, names = torch.nn.Linear(1, 1), [tmp_path / f"{k}.jpg" for k in range(64)]
    options = Namespace(run_dir=tmp_path, batch_size=32, accumulate=2, seed=0, precision="float32")
    run = Pretraining(options, model, torch.optim.Adam(model.parameters()), names)
    for step in range(2):
        parts, members = np.split(run.share(0, step), 2), run.members(0, step)
        assert [sorted(half) for half in np.split(members, 2)] == [part.tolist() for part in parts]
        assert parts[0].max() > parts[1].min()


def test_a_run_whose_photographs_were_replaced_does_not_go_on(tmp_path):
    paths = [photograph(tmp_path / "photographs" / f"{k}.png", seed=k) for k in range(4)]
    options = Namespace(
        run_dir=tmp_path / "run", batch_size=2, accumulate=1, seed=0, precision="float32", resume="auto", epochs=3,
        schedule="constant", save_minutes=0, data=[tmp_path / "photographs"], recipe="paper", image_size=96,
        standardise=False, arch="bottleneck18",
    )  # fmt: skip

    def begun() -> Pretraining:
        model = DualScaleNet()
        run = Pretraining(options, model, torch.optim.Adam(model.parameters()), paths)
        resume(run, len(paths))
        return run

    run = begun()
    run.start_at(Position(1, 0, None, [{"epoch": 1, "loss": 1.0}], run.began))
    options.run_dir.mkdir()
    run.save()
    assert begun().epoch == 1
    photograph(paths[0], (60, 50))
    with pytest.raises(UserError, match="began with 4 photographs, now their files are others: "):
        begun()
    options.resume = "force"
    assert begun().epoch == 1


def test_batches_are_the_same_from_the_mapping_and_from_the_device():
    photographs = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), np.uint8)
    indices = [np.array([0, 5]), np.array([2, 3]), np.array([8, 1])]
    for source in (photographs, torch.from_numpy(photographs)):
        found = list(batches(source, indices, torch.device("cpu")))
        assert len(found) == 3
        for batch, index in zip(found, indices, strict=True):
            assert torch.equal(batch, torch.from_numpy(photographs[index]))


def test_a_full_disk_is_said_before_anything_is_decoded(tmp_path, monkeypatch):
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"no room for 0\.0 GiB in .* \(No space left on device\): choose"):
        load_photographs([photograph(tmp_path / "a.png")], 32, True, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.npy")) and not list((tmp_path / "cache").glob(".*"))
