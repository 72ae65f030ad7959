"""Networks: what they compute, and that a file gives back the very model that went into it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.errors import InputError
from trainers import models


def network(**settings: Any) -> nn.Module:
    return models.create("preact-resnet-18", **{"num_classes": 10, "width": 4, **settings})


def lived(**settings: Any) -> nn.Module:
    """A network whose running statistics are not the initial ones, in eval mode."""
    model = network(**settings)
    with torch.no_grad():
        for seed in range(3):
            model(images(8, model.architecture["in_channels"], seed=seed))  # type: ignore[index]
    return model.eval()


def images(n: int = 4, channels: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert 20 < len(text) < 600
    return text


@pytest.mark.parametrize(("settings", "count"), [({"width": 64}, 11_172_170), ({"width": 16}, 701_018)])
def test_parameter_counts(settings: dict[str, int], count: int) -> None:
    assert sum(parameter.numel() for parameter in network(**settings).parameters()) == count


def by_hand(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """PreActResNet-18 from its weights alone, running statistics in the batch norms."""

    def norm(name: str, z: Tensor) -> Tensor:
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(z, mean, var, weight, bias))

    z = F.conv2d(x, state["conv1.weight"], padding=1)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            active = norm(f"{at}.bn1", z)
            shortcut = state.get(f"{at}.shortcut.0.weight")
            kept = z if shortcut is None else F.conv2d(active, shortcut, stride=stride)
            inner = F.conv2d(active, state[f"{at}.conv1.weight"], stride=stride, padding=1)
            z = kept + F.conv2d(norm(f"{at}.bn2", inner), state[f"{at}.conv2.weight"], padding=1)
    return F.linear(norm("bn", z).mean((2, 3)), state["linear.weight"], state["linear.bias"])


def test_it_computes_preact_resnet_18() -> None:
    model, x = lived(), images()
    torch.testing.assert_close(model(x), by_hand(model.state_dict(), x))
    with_bias = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d) and part.bias is not None]
    assert with_bias == []


def test_normalisation_is_inside() -> None:
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
    plain, normalising = network(seed=1).eval(), network(seed=1, mean=mean, std=std).eval()
    x = images()
    outside = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.equal(normalising(x), plain(outside))
    assert not torch.equal(normalising(x), plain(x))


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 64), (1, 8)])
def test_sizes_and_channels(channels: int, size: int) -> None:
    logits = network(in_channels=channels, num_classes=7)(images(2, channels, size))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


def test_weights_follow_from_the_seed_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = network(seed=5), network(seed=5), network(seed=6)
    assert torch.equal(torch.get_rng_state(), before)
    assert models.dumps(first) == models.dumps(second) != models.dumps(other)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"width": 5, "num_classes": 3},
        {"in_channels": 1},
        {"mean": [0.1, 1 / 3, 0.7], "std": [0.3, 0.1, 1.7]},
        {"activation": "softplus"},
    ],
)
def test_a_file_gives_the_same_bits_back(settings: dict[str, Any], tmp_path: Path) -> None:
    model = lived(**settings)
    x = images(channels=model.architecture["in_channels"])  # type: ignore[index]
    models.save(model, tmp_path / "model.safetensors")
    before = torch.get_rng_state()
    again = models.load(tmp_path / "model.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.eval()(x), model(x))
    assert again.architecture == model.architecture
    assert models.dumps(again) == models.dumps(model) == (tmp_path / "model.safetensors").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_architecture_makes_an_equal_model() -> None:
    model = lived(width=3, mean=[0.5] * 3)
    again = models.create(**model.architecture)  # type: ignore[arg-type]
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(images()), model(images()))


def test_a_model_in_channels_last_is_saved_alike() -> None:
    model = lived()
    plain = models.dumps(model)
    assert models.dumps(model.to(memory_format=torch.channels_last)) == plain  # type: ignore[call-overload]


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999999])
def test_a_truncated_file_is_refused(share: float) -> None:
    data = models.dumps(network())
    with pytest.raises(InputError, match="truncated|foreign|safetensors") as error:
        models.loads(data[: int(share * len(data))])
    one_line(error)


def written(tensors: dict[str, Tensor], metadata: dict[str, str] | None) -> bytes:
    return safetensors.torch.save(tensors, metadata)


def with_architecture(**changes: Any) -> bytes:
    model = network()
    architecture = {**model.architecture, **changes}  # type: ignore[dict-item]
    return written(model.state_dict(), {"architecture": json.dumps(architecture)})


FOREIGN = {
    "random bytes": bytes(range(256)) * 8,
    "text": b"not a model at all, but text that is long enough to have a header",
    "a torch file": b"PK\x03\x04" + b"\0" * 100,
    "no metadata": written({"weight": torch.ones(2)}, None),
    "other metadata": written({"weight": torch.ones(2)}, {"format": "pt"}),
    "an architecture that is not JSON": written(network().state_dict(), {"architecture": "PreActResNet"}),
    "an architecture that is a list": written(network().state_dict(), {"architecture": "[1]"}),
    "an empty architecture": written(network().state_dict(), {"architecture": "{}"}),
    "a header that is a list": struct.pack("<Q", 2) + b"[]",
    "an unknown model": with_architecture(name="preact-resnet-81"),
    "an unknown option": with_architecture(depth=3),
    "another width": with_architecture(width=5),
    "an absurd width": with_architecture(width=10**30),
    "a width beyond memory": with_architecture(width=10**6),
    "a negative width": with_architecture(width=-4),
    "a width in words": with_architecture(width="four"),
    "other classes": with_architecture(num_classes=11),
    "means in words": with_architecture(mean=["a", "b", "c"]),
    "too few means": with_architecture(mean=[0.5]),
    "a mean that is a number": with_architecture(mean=0.5),
    "a deviation of zero": with_architecture(std=[1.0, 0.0, 1.0]),
    "an unknown activation": with_architecture(activation="gelu"),
    "a tensor too many": written(
        {**network().state_dict(), "extra": torch.ones(1)}, {"architecture": json.dumps(network().architecture)}
    ),
    "a tensor of another type": written(
        {k: v.double() for k, v in network().state_dict().items()},
        {"architecture": json.dumps(network().architecture)},
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(InputError) as error:
        models.load(path)
    assert str(path) in one_line(error)


def test_a_missing_tensor_is_named() -> None:
    state = network().state_dict()
    del state["linear.bias"]
    with pytest.raises(InputError, match=r"linear\.bias"):
        models.loads(written(state, {"architecture": json.dumps(network().architecture)}))


def test_a_path_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(InputError, match="cannot read the model") as error:
            models.load(path)
        assert str(path) in one_line(error)
    with pytest.raises(InputError, match="cannot write the model") as error:
        models.save(network(), tmp_path / "no-such-folder" / "model.safetensors")
    one_line(error)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 1}, "num_classes >= 2, got 1"),
        ({"width": 0}, "width >= 1, got 0"),
        ({"in_channels": 0}, "in_channels >= 1, got 0"),
        ({"std": [0.0, 1.0, 1.0]}, "3 stds > 0"),
        ({"mean": [0.5]}, "expected 3 means"),
        ({"activation": "reul"}, "did you mean 'relu'"),
        ({"depth": 3}, "unknown option .*'depth'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        network(**settings)
    one_line(error)


def test_an_unknown_model_gets_a_proposal() -> None:
    with pytest.raises(InputError, match="unknown model 'preact-resnet-81': did you mean 'preact-resnet-18'"):
        models.create("preact-resnet-81", num_classes=10)
    assert "preact-resnet-18" in models.models.names()
