"""Networks, data and training of the study."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lmcfast
from lmcfast.errors import CheckpointError
from lmcfast.study import Batches, Dataset, Mlp, Recipe, Resnet20, Vgg11, build, load_digits, load_npz, train
from lmcfast.study.training import CONVOLUTION_RECIPE, MLP_RECIPE, _rate, augment


def tiny(classes: int = 2) -> Dataset:
    """Two classes told apart by the sign of the pixels' mean: 60 images of 4 x 4 for training, 20 for testing."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(80) % classes
    inputs = torch.randn(80, 1, 4, 4, generator=generator) + (2.0 * targets[:, None, None, None] - 1.0)
    return Dataset("tiny", inputs[:60], targets[:60], inputs[60:], targets[60:])


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (build(lambda: Mlp(12, (7, 9)), 0), (3, 3, 2, 2)),
        (build(lambda: Vgg11(1 / 16, 1), 0), (2, 1, 32, 32)),
        (build(lambda: Vgg11(1 / 16, 3, norm=False), 0), (2, 3, 32, 32)),
        (build(lambda: Resnet20(1 / 4, 1), 0), (2, 1, 8, 8)),
    ],
    ids=["mlp", "vgg11", "vgg11 without norm", "resnet20"],
)
def test_the_specs_know_the_networks(module: nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    module = module.eval()
    assert module(inputs).shape == (shape[0], 10)
    spec = lmcfast.spec_from_params(module.state_dict())
    report = lmcfast.verify_spec(spec, module, inputs, seeds=1)
    movable = set(spec.movable_groups)
    assert movable
    assert set(report.groups) == movable


@pytest.mark.parametrize(
    ("module", "weights"),
    [
        (Mlp(), 784 * 512 + 512 + 2 * (512 * 512 + 512) + 512 * 10 + 10),
        (Vgg11(0.25, 1), None),
        (Resnet20(1), 0.27e6 + 16 * 32 * 9 + 32 * 64 * 9),
    ],
    ids=["mlp", "vgg11", "resnet20"],
)
def test_sizes_are_the_papers(module: nn.Module, weights: float | None) -> None:
    count = sum(parameter.numel() for parameter in module.parameters())
    if weights is None:  # eight 3x3 convolutions without bias, two norm parameters a channel, one linear layer
        sizes = [1, 16, 32, 64, 64, 128, 128, 128, 128]
        weights = sum(9 * a * b + 2 * b for a, b in pairwise(sizes)) + 128 * 10 + 10
        assert count == weights
    else:
        assert count == pytest.approx(weights, rel=0.02)


def test_keys_and_bad_widths() -> None:
    assert list(Mlp(4, (3,), 2).state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert "layer2.0.shortcut.0.weight" in Resnet20(0.25).state_dict()
    with pytest.raises(ValueError, match=r"width: 0\.001"):
        Vgg11(0.001)


def test_the_digits() -> None:
    pytest.importorskip("sklearn", reason="the digits need scikit-learn")
    data = load_digits()
    assert data.train_inputs.shape == (1198, 1, 8, 8)
    assert data.test_inputs.shape == (599, 1, 8, 8)
    assert (data.classes, data.input_size, data.train_inputs.dtype) == (10, 64, torch.float32)
    assert (float(data.train_inputs.min()), float(data.train_inputs.max())) == (0.0, 1.0)
    for targets in (data.train_targets, data.test_targets):
        assert torch.bincount(targets).min() > 0.08 * len(targets)
    test = {row.numpy().tobytes() for row in data.test_inputs}
    assert not test & {row.numpy().tobytes() for row in data.train_inputs}


def test_a_missing_scikit_learn_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(lmcfast.UnavailableError, match=r"pip install lmcfast\[demo\]"):
        load_digits()


def arrays(shape: tuple[int, ...] = (6, 5)) -> dict[str, np.ndarray]:
    return {
        "x_train": np.arange(4 * np.prod(shape), dtype=np.uint8).reshape(4, *shape),
        "y_train": np.array([0, 1, 2, 1], dtype=np.uint8),
        "x_test": np.full((2, *shape), 255, dtype=np.uint8),
        "y_test": np.array([2, 0], dtype=np.uint8),
    }


@pytest.mark.parametrize(("shape", "wanted"), [((6, 5), (1, 6, 5)), ((6, 5, 3), (3, 6, 5)), ((3, 6, 5), (3, 6, 5))])
def test_npz_files(tmp_path: Path, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    path = tmp_path / "some.npz"
    np.savez_compressed(path, **arrays(shape))
    data = load_npz(path)
    assert (data.name, data.classes) == ("some", 3)
    assert data.train_inputs.shape == (4, *wanted)
    assert data.test_inputs.eq(1).all()
    pixel = arrays(shape)["x_train"][1, 2, 3] if len(shape) == 2 else None
    if pixel is not None:
        assert float(data.train_inputs[1, 0, 2, 3]) == pytest.approx(pixel / 255, rel=1e-6)
    assert data.train_targets.tolist() == [0, 1, 2, 1]


def test_npz_channels_last_keep_their_pixels(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, **{**arrays((6, 5, 3)), "y_test": np.array([[2], [0]])})
    data = load_npz(path)
    assert float(data.train_inputs[1, 2, 4, 3]) == pytest.approx(arrays((6, 5, 3))["x_train"][1, 4, 3, 2] / 255)
    assert data.test_targets.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_test": None}, "has no array 'x_test'"),
        ({"y_train": np.zeros(3, np.int64)}, "4 images and 3 labels"),
        ({"y_test": np.array([0.5, 1.0])}, "y_test is float64"),
        ({"y_test": np.array([0, -1])}, "y_test holds the negative label -1"),
        ({"x_train": np.zeros((4, 6), np.uint8)}, r"x_train has shape \(4, 6\)"),
        ({"x_train": np.full((4, 2, 2), np.nan)}, "x_train holds a value that is not finite"),
        ({"x_train": np.zeros((4, 2, 2), np.int64)}, "x_train is int64"),
        ({"x_train": np.array([None] * 4)}, "is not an .npz file of plain arrays"),
    ],
)
def test_bad_npz_files_are_named(tmp_path: Path, changes: dict[str, np.ndarray | None], words: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **{key: value for key, value in {**arrays(), **changes}.items() if value is not None})
    with pytest.raises(lmcfast.CheckpointError, match=f"bad.npz: .*{words}"):
        load_npz(path)


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").touch()
    np.savez(tmp_path / "whole.npz", **arrays())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:700])
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name in ("text.npz", "empty.npz", "cut.npz", "one.npy", "none.npz"):
        with pytest.raises(lmcfast.CheckpointError, match=name):
            load_npz(tmp_path / name)


def test_batches_can_be_gone_through_again() -> None:
    batches = Batches(torch.arange(5), torch.arange(5) * 2, 2)
    for _ in range(2):
        assert [(x.tolist(), y.tolist()) for x, y in batches] == [([0, 1], [0, 2]), ([2, 3], [4, 6]), ([4], [8])]
    assert len(batches) == 3
    with pytest.raises(ValueError, match="size"):
        Batches(torch.arange(5), torch.arange(5), 0)


def dropout_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_repeats_learns_and_leaves_the_random_state_alone(optimizer: str) -> None:
    recipe = Recipe(6, 10, optimizer, learning_rate=0.02, shift=1, flip=True, warmup=1, decay=True)  # type: ignore[arg-type]
    data, calls = tiny(), []
    state = torch.get_rng_state()
    first = train(dropout_network, data, recipe, 3, progress=lambda *call: calls.append(call))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)  # another global random state must not matter
    again, other = train(dropout_network, data, recipe, 3), train(dropout_network, data, recipe, 4)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert not torch.equal(tensor, other.state_dict()[name])
    assert calls == [(done, 6) for done in range(7)]
    assert not any(part.training for part in first.modules())
    assert all(parameter.grad is None for parameter in first.parameters())
    hits = first(data.test_inputs).argmax(1).eq(data.test_targets)
    assert float(hits.double().mean()) >= 0.9


def test_no_epochs_give_the_initial_weights() -> None:
    trained = train(dropout_network, tiny(), Recipe(0, 10), 5)
    for name, tensor in build(dropout_network, 5).state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name])


def test_augmentation_moves_images_by_at_most_the_shift() -> None:
    image = torch.arange(1.0, 26.0).reshape(1, 1, 5, 5).expand(400, 2, 5, 5)
    padded = torch.nn.functional.pad(image[0, 0], (1, 1, 1, 1))
    allowed = {padded[i : i + 5, j : j + 5].numpy().tobytes() for i in range(3) for j in range(3)}
    found = augment(image, Recipe(1, 1, shift=1), torch.Generator().manual_seed(0))
    assert found.shape == image.shape
    assert {one.contiguous().numpy().tobytes() for one in found[:, 0]} == allowed
    assert torch.equal(found[:, 0], found[:, 1])
    flipped = augment(image, Recipe(1, 1, flip=True), torch.Generator().manual_seed(0))
    mirrored = flipped.eq(image.flip(-1)).flatten(1).all(1)
    assert torch.equal(mirrored, ~flipped.eq(image).flatten(1).all(1))
    assert 150 < int(mirrored.sum()) < 250


def test_the_rate_rises_and_falls() -> None:
    recipe = Recipe(4, 1, warmup=1, decay=True)
    rates = [_rate(recipe, step, 5) for step in range(20)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(rates[5:], np.arange(15, 0, -1) / 15)
    assert {_rate(MLP_RECIPE, step, 5) for step in range(25)} == {1.0}
    assert CONVOLUTION_RECIPE.warmup == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "lbfgs"}, "optimizer"),
        ({"epochs": -1}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_bad_recipes_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe(**{"epochs": 1, "batch_size": 1, **changes})  # type: ignore[arg-type]


def test_a_training_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    data, recipe = tiny(), Recipe(4, 16, "sgd", 0.1, warmup=1, decay=True, shift=1, flip=True)
    state = tmp_path / "state.pt"

    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 2))

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    whole = train(network, data, recipe, 7).state_dict()
    with pytest.raises(KeyboardInterrupt):
        train(network, data, recipe, 7, progress=stop, state=state)
    calls: list[int] = []
    resumed = train(network, data, recipe, 7, progress=lambda done, total: calls.append(done), state=state).state_dict()
    assert calls == [2, 3, 4]
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())
    with pytest.raises(CheckpointError, match="another training: its seed differs"):
        train(network, data, recipe, 8, state=state)
    state.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"state\.pt: is not the state of a training"):
        train(network, data, recipe, 7, state=state)
