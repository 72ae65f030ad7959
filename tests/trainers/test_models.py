from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.errors import InputError
from trainers import models


def narrow(**settings: Any) -> nn.Module:
    return models.create(**{"num_classes": 10, "width": 2} | settings)


def trained(model: nn.Module) -> nn.Module:
    """The model with parameters and batch-norm statistics that no fresh one has."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.1)
    return model


# ---- contracts over the registry


@pytest.mark.parametrize("name", models.models.names())
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 64, 64), (1, 8, 8), (3, 16, 16)])
def test_a_model_is_logits_and_an_architecture(name: str, shape: tuple[int, int, int]) -> None:
    model = narrow(name=name, num_classes=7, in_channels=shape[0])
    logits = model(torch.rand(2, *shape))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    architecture: Any = model.architecture
    again = models.create(**json.loads(json.dumps(architecture)))
    assert again.architecture == architecture
    assert architecture["name"] == name


@pytest.mark.parametrize("name", models.models.names())
def test_gradients_reach_the_image_and_every_parameter(name: str) -> None:
    model, x = narrow(name=name, width=8), torch.rand(4, 3, 16, 16, requires_grad=True)
    F.cross_entropy(model(x), torch.arange(4)).backward()
    for tensor in (x, *model.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


@pytest.mark.parametrize("name", models.models.names())
def test_weights_follow_from_the_seed_and_the_global_state_stays(name: str) -> None:
    state = torch.get_rng_state()
    first, same, other = (narrow(name=name, seed=seed) for seed in (1, 1, 2))
    assert torch.get_rng_state().equal(state)
    for key, tensor in first.state_dict().items():
        assert tensor.equal(same.state_dict()[key])
    assert any(not t.equal(other.state_dict()[key]) for key, t in first.state_dict().items())


@pytest.mark.parametrize("name", models.models.names())
def test_normalisation_is_inside(name: str) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    plain, normalising = narrow(name=name).eval(), narrow(name=name, mean=mean, std=std).eval()
    x = torch.rand(2, 3, 32, 32)
    z = (x - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
    torch.testing.assert_close(normalising(x), plain(z))


# ---- PreActResNet-18


def test_size_is_the_literatures() -> None:
    model = models.create(num_classes=10)
    assert sum(p.numel() for p in model.parameters()) == 11_172_170
    assert not any(key.endswith(("conv1.bias", "conv2.bias", "shortcut.0.bias")) for key in model.state_dict())


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_forward_is_he_et_als(activation: str) -> None:
    model = trained(narrow(activation=activation, width=3)).eval()
    weights, x = model.state_dict(), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(x), _forward(weights, x, getattr(F, activation)))


def _forward(w: dict[str, Tensor], x: Tensor, act: Any) -> Tensor:
    """The network written out from the paper's formulae over the names of the published checkpoints."""

    def bn(h: Tensor, name: str) -> Tensor:
        h = (h - w[f"{name}.running_mean"].reshape(-1, 1, 1)) / (w[f"{name}.running_var"] + 1e-5).sqrt().reshape(
            -1, 1, 1
        )
        return h * w[f"{name}.weight"].reshape(-1, 1, 1) + w[f"{name}.bias"].reshape(-1, 1, 1)

    h = F.conv2d(x, w["conv1.weight"], padding=1)
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            out = act(bn(h, f"{name}.bn1"))
            kept = F.conv2d(out, w[f"{name}.shortcut.0.weight"], stride=stride) if stride == 2 else h
            out = F.conv2d(out, w[f"{name}.conv1.weight"], stride=stride, padding=1)
            h = F.conv2d(act(bn(out, f"{name}.bn2")), w[f"{name}.conv2.weight"], padding=1) + kept
    h = F.avg_pool2d(act(bn(h, "bn")), 4).flatten(1)
    return h @ w["linear.weight"].T + w["linear.bias"]


# ---- bad settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "preact-resnet-81"}, "unknown model 'preact-resnet-81': did you mean 'preact-resnet-18'?"),
        ({"width": 0}, "expected a whole width >= 1, got 0 (model)"),
        ({"width": 2.5}, "expected a whole width >= 1, got 2.5 (model)"),
        ({"width": True}, "expected a whole width >= 1, got True (model)"),
        ({"num_classes": 1}, "expected a whole num_classes >= 2, got 1 (model)"),
        ({"mean": [0.5]}, "expected 3 means and 3 stds > 0"),
        ({"std": [0.5, 0.0, 0.5]}, "expected 3 means and 3 stds > 0"),
        ({"activation": "rulu"}, "unknown activation 'rulu': did you mean 'relu'?"),
        ({"activatoin": "relu"}, "did you mean 'activation'?"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        narrow(**settings)
    assert message in str(caught.value)


# ---- files


def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = trained(narrow(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), activation="softplus"))
    models.save(model, tmp_path / "model.safetensors")
    state = torch.get_rng_state()
    again = models.load(tmp_path / "model.safetensors")
    assert torch.get_rng_state().equal(state)
    assert not any(module.training for module in again.modules())
    assert again.architecture == model.architecture
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert again.state_dict()[key].equal(tensor)
    x = torch.rand(2, 3, 32, 32)
    assert again(x).equal(model.eval()(x))
    assert models.dumps(again) == models.dumps(model) == (tmp_path / "model.safetensors").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_memory_format_leaves_no_trace_in_the_file() -> None:
    model = narrow()
    data = models.dumps(model)
    assert models.dumps(model.to(memory_format=torch.channels_last)) == data  # type: ignore[call-overload]


def with_metadata(model: nn.Module, **changes: Any) -> bytes:
    architecture: Any = model.architecture
    metadata = {"architecture": json.dumps(architecture | changes)}
    return safetensors.torch.save(model.state_dict(), metadata=metadata)


def test_truncated_at_every_length_is_one_line() -> None:
    data = models.dumps(narrow())
    for length in (0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(
            InputError, match="expected a safetensors file, got a truncated or foreign one: x"
        ) as caught:
            models.loads(data[:length], origin="x")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04 a broken zip, say" * 20, "expected a checkpoint of nothing but weights, got there"),
        (safetensors.torch.save({"w": torch.zeros(2)}), "architecture in the metadata"),
        (safetensors.torch.save({"w": torch.zeros(2)}, metadata={"architecture": "{"}), "architecture in the metadata"),
        (
            safetensors.torch.save({"w": torch.zeros(2)}, metadata={"architecture": "[]"}),
            "architecture in the metadata",
        ),
        (
            safetensors.torch.save({"w": torch.zeros(2)}, metadata={"architecture": "{}"}),
            "expected a known architecture",
        ),
        (with_metadata(narrow(), name="vgg"), "unknown model 'vgg'"),
        (with_metadata(narrow(), width="wide"), "expected a whole width"),
        (with_metadata(narrow(), depth=4), "expected a known architecture"),
        (with_metadata(narrow(), mean=["a", "b", "c"]), "expected 3 means"),
        (with_metadata(narrow(), mean=5), "expected a known architecture"),
        (
            with_metadata(narrow(), width=100_000),
            "expected bn.bias to be (800000,) float32 as the architecture says, got (16,)",
        ),
        (
            with_metadata(narrow(), num_classes=9),
            "expected linear.bias to be (9,) float32 as the architecture says, got (10,)",
        ),
        (
            with_metadata(narrow().half()),
            "expected bn.bias to be (16,) float32 as the architecture says, got (16,) float16",
        ),
    ],
)
def test_foreign_and_mismatching_files_are_one_line(data: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        models.loads(data, origin="there")
    assert message in str(caught.value)
    assert "there" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_surplus_tensors_are_named() -> None:
    model = narrow()
    tensors, metadata = model.state_dict(), {"architecture": json.dumps(model.architecture)}
    extra = safetensors.torch.save({**tensors, "z": torch.zeros(1)}, metadata=metadata)
    with pytest.raises(InputError, match="expected z to be absent as the architecture says"):
        models.loads(extra)
    tensors.pop("linear.bias")
    with pytest.raises(InputError, match=r"expected linear.bias to be \(10,\) float32 .*, got absent"):
        models.loads(safetensors.torch.save(tensors, metadata=metadata))


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the model .*none.safetensors: No such file"):
        models.load(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match=r"cannot write the model .*: No such file"):
        models.save(narrow(), tmp_path / "no" / "folder")
    with pytest.raises(InputError, match=r"cannot write the model .*: Is a directory"):
        models.save(narrow(), tmp_path)
    assert not list(tmp_path.parent.glob(f"{tmp_path.name}.tmp-*"))


# ---- features


@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_features_are_the_stages_after_the_activation(activation: str, shape: tuple[int, int, int]) -> None:
    """Compared with what a forward leaves behind each stage."""
    model: Any = trained(narrow(activation=activation, width=3, in_channels=shape[0], mean=[0.4] * shape[0])).eval()
    stages: list[Tensor] = []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        model.get_submodule(name).register_forward_hook(lambda module, args, out: stages.append(out))
    x, act = torch.rand(2, *shape), getattr(F, activation)
    logits = model(x)
    *early, last = stages
    wanted = (*(act(out) for out in early), act(model.bn(last)))
    features = model.features(x)
    assert [f.shape[1] for f in features] == [3, 6, 12, 24]
    assert [f.shape[2] for f in features] == [math.ceil(shape[1] / 2**stage) for stage in range(4)]
    for got, expected in zip(features, wanted, strict=True):
        torch.testing.assert_close(got, expected)
    torch.testing.assert_close(model.linear(features[-1].mean((2, 3))), logits)
