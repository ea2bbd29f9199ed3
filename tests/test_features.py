"""Feature vectors of photographs, by one command."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REAL, call, run_script
from PIL import Image
from test_programs import trained_encoder

from Dataset.fundus import draw_fundus
from DownStream import features
from DualScaleNet.common.script import UserError
from DualScaleNet.encoder import load_encoder, save_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.pth"
    save_encoder(path, trained_encoder(), "paper", 1, 1, size=96)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photographs, one nested, and a label that only its colours tell."""
    for k, name in enumerate(("a.jpg", "left/ü.png")):
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_fundus(np.random.default_rng(k), 120, 150).image).save(path)
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / "mine" / "b.png")
    return tmp_path / "mine"


def vectors(monkeypatch: pytest.MonkeyPatch, encoder: Path, *images: object, **options: object) -> dict:
    """What features.py writes."""
    out = encoder.parent / "features.npz"
    out.unlink(missing_ok=True)
    more = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    call(monkeypatch, features, "--encoder", encoder, "--images", *images, "--out", out, "--device", "cpu", *more)
    return dict(np.load(out))


def test_vectors_are_the_averages_of_the_maps(encoder, folder, monkeypatch, capsys):
    found = vectors(monkeypatch, encoder, folder)
    assert "skipped: 1 file with a label's few colours" in capsys.readouterr().out
    assert found.keys() == {"names", "c5", "all"} and found["names"].tolist() == ["a", "left/ü"]
    assert found["c5"].shape == (2, 512) and found["all"].shape == (2, 1024) and found["all"].dtype == np.float32
    square = Image.open(folder / "left" / "ü.png").resize((96, 96), Image.Resampling.BILINEAR)
    image = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        maps = load_encoder(encoder)[0](image)
    assert np.allclose(found["all"][1], torch.cat([each.mean((2, 3))[0] for each in maps]), rtol=1e-4, atol=1e-5)
    assert np.array_equal(found["c5"], found["all"][:, -512:]) and found["c5"].std(0).max() > 0.01


def test_a_vector_does_not_depend_on_the_others(encoder, folder, monkeypatch):
    both = vectors(monkeypatch, encoder, folder)
    first = (encoder.parent / "features.npz").read_bytes()
    alone = vectors(monkeypatch, encoder, folder / "a.jpg")
    assert np.array_equal(alone["all"][0], both["all"][0])
    vectors(monkeypatch, encoder, folder)
    assert (encoder.parent / "features.npz").read_bytes() == first
    both, alone = (vectors(monkeypatch, encoder, x, batch_norm="reestimate") for x in (folder, folder / "a.jpg"))
    assert not np.allclose(alone["c5"][0], both["c5"][0], rtol=0.01)


def test_photographs_are_prepared_as_in_pretraining(tmp_path, encoder, folder, monkeypatch):
    plain = vectors(monkeypatch, encoder, folder)["all"]
    assert np.array_equal(vectors(monkeypatch, encoder, folder, size=96)["all"], plain)
    assert not np.allclose(vectors(monkeypatch, encoder, folder, size=64)["all"], plain, rtol=0.01)
    save_encoder(tmp_path / "steady.pth", trained_encoder(), "steady", 1, 1, size=96, standardise=True)
    other = vectors(monkeypatch, tmp_path / "steady.pth", folder)["all"]
    assert not np.allclose(other, plain, rtol=0.01)
    content = torch.load(tmp_path / "steady.pth")
    del content["size"], content["standardise"]  # as older versions wrote it
    torch.save(content, tmp_path / "old.pth")
    assert np.array_equal(vectors(monkeypatch, tmp_path / "old.pth", folder, size=96)["all"], other)


def test_what_cannot_be_read_is_named_and_left_out(encoder, folder, monkeypatch, capsys):
    (folder / "0.png").write_bytes(b"no photograph")
    with pytest.raises(UserError, match=r"^1 of 4 photographs could not be read and were left out$"):
        vectors(monkeypatch, encoder, folder, batch_norm="reestimate")
    assert f"left out: cannot read {folder / '0.png'}" in capsys.readouterr().err
    assert np.load(encoder.parent / "features.npz")["names"].tolist() == ["a", "left/ü"]
    with pytest.raises(UserError, match=r"^1 of 1 photographs could not be read"):
        vectors(monkeypatch, encoder, folder / "0.png")
    with pytest.raises(UserError, match=r"^no photographs in --images: "):
        vectors(monkeypatch, encoder, folder / "b.png")
    assert not list(encoder.parent.glob("*.npz"))


def test_wrong_usage(encoder, folder):
    options = ("--encoder", encoder, "--images", folder)
    for more, message in (
        (("--out", "features.csv"), "--out features.csv: must end in .npz"),
        (("--out", "a.npz", "--size", 16), "--size 16: must be at least 32"),
    ):
        assert message in run_script("DownStream/features.py", *options, *more, code=2).stderr


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "idrid_grading_516").is_dir(), reason="no real photographs in ../shared/data")
def test_real_photographs(encoder, monkeypatch):
    files = sorted((REAL / "idrid_grading_516").glob("te_*.jpg"))[:6]
    found = vectors(monkeypatch, encoder, *files)
    assert found["names"].tolist() == [file.stem for file in files]
    assert np.isfinite(found["all"]).all() and found["c5"].std(0).max() > 0.01
