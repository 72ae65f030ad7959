"""Checkpoints of others: what is recognised by the names of its tensors, and what is refused."""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks.errors import InputError
from trainers import models
from trainers.models import foreign

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def narrow(name: str = "preact-resnet-18", **more: Any) -> nn.Module:
    """With batch-norm statistics that no fresh one has."""
    model = models.create(name, num_classes=7, width=2, **more)
    model(X.repeat(4, 1, 1, 1))
    return model.eval()


def saved(held: Any) -> bytes:
    file = io.BytesIO()
    torch.save(held, file)
    return file.getvalue()


def wrapped(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("preact-resnet-18", "softplus"),
        ("resnet-18", "relu"),
        ("wide-resnet-28-10", "relu"),
        ("wide-resnet-34-10", "relu"),
    ],
)
@pytest.mark.parametrize(
    "packed",
    [
        dict,
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": wrapped("module.")(state)},
        wrapped("module.model."),
        lambda state: {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")},
    ],
)
def test_a_checkpoint_gives_its_models_logits(name: str, activation: str, packed: Any, tmp_path: Path) -> None:
    """The names are those of the authors' files; without normalisation a PreActResNet is E-AT's, with softplus."""
    model = narrow(name, activation=activation)
    path = tmp_path / "theirs.pt"
    path.write_bytes(saved(packed(dict(model.state_dict()))))
    found = models.load(path)
    assert found.architecture == model.architecture
    assert not found.training
    assert found(X).equal(model(X))
    assert models.loads(models.dumps(found))(X).equal(model(X)), "kept as safetensors from then on"


def test_buffers_of_mean_and_std_are_the_normalisation() -> None:
    model = narrow(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.5))
    state = dict(model.state_dict()) | {"mu": torch.tensor([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1)}
    found = foreign.loads(saved(state | {"sigma": torch.tensor([0.2, 0.25, 0.5]).reshape(1, 3, 1, 1)}))
    assert found.architecture["activation"] == "relu"  # type: ignore[index]
    torch.testing.assert_close(found(X), model(X))


def test_the_blocks_that_trades_leaves_out_are_left_out() -> None:
    model = narrow("wide-resnet-34-10")
    unused = {f"sub_{name}": t for name, t in model.state_dict().items() if name.startswith("block1.")}
    assert foreign.loads(saved(dict(model.state_dict()) | unused))(X).equal(model(X))


def without(name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in narrow().state_dict().items() if key != name}


class Harmful:
    def __reduce__(self) -> Any:
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            lambda: saved(without("layer3.0.bn2.bias")),
            r"expected layer3\.0\.bn2\.bias to be \(8,\) in a pre.*got none",
        ),
        (lambda: saved(without("") | {"more": torch.ones(2)}), r"expected more to be absent in a preact.*got \(2,\)"),
        (lambda: saved({"a": torch.ones(2)}), "expected the weights of a PreActResNet-18, ResNet-18,.* got 1 others"),
        (lambda: saved({"epoch": 3}), "expected weights, by name or under state_dict,.* got others"),
        (lambda: saved({"state_dict": None}), "expected weights, by name or under state_dict,.* got others"),
        (lambda: saved(torch.ones(3)), "expected weights by name, got Tensor"),
        (lambda: saved(without("") | {"more": torch.ones(())}), r"expected more to be absent in a .*got \(\)"),
        (lambda: saved(without("") | {"mu": torch.ones(3)}), "a mean and a std, or neither, got mu alone: model file"),
        (lambda: saved(without("") | {"normalize.more": torch.ones(3)}), r"expected normalize\.more to be absent"),
        (
            lambda: saved(without("") | {"mean": torch.ones(3), "std": torch.zeros(3)}),
            "expected 3 means and 3 stds > 0, .*: model file",
        ),
        (lambda: saved(without("") | {"conv1.weight": torch.ones(3)}), "expected the weights of a PreActResNet-18"),
        (
            lambda: saved(without("") | {"linear.weight": torch.ones(1, 16)}),
            "expected a whole num_classes >= 2, got 1 .*: model file",
        ),
        (
            lambda: saved(without("") | {"bn.bias": torch.ones(16, dtype=torch.cfloat)}),
            r"expected dense floating-point weights, got bn\.bias \(complex64, strided, cpu\)",
        ),
        (
            lambda: saved(without("") | {"mean": torch.ones(3, dtype=torch.cfloat), "std": torch.ones(3)}),
            r"expected dense floating-point weights, got mean \(complex64",
        ),
        (
            lambda: saved(without("") | {"bn.bias": torch.ones(16).to_sparse()}),
            r"expected dense floating-point weights, got bn\.bias \(float32, sparse_coo, cpu\)",
        ),
        (
            lambda: saved(without("") | {"bn.bias": torch.ones(16, device="meta")}),
            r"expected dense floating-point weights, got bn\.bias \(float32, strided, meta\)",
        ),
        (lambda: saved(without(""))[:500], "expected a checkpoint of nothing but weights, got model file"),
        (lambda: pickle.dumps(Harmful()), "expected a checkpoint of nothing but weights, got model file"),
        (lambda: saved({"state_dict": Harmful()}), "expected a checkpoint of nothing but weights, got model file"),
    ],
)
def test_what_is_no_checkpoint_of_ours_to_read_is_refused_in_one_line(
    data: Callable[[], bytes], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        models.loads(data())
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_short_anywhere_is_refused(zipped: bool) -> None:
    """Of both formats of torch.save: where it is cut decides which of Python's errors torch raises."""
    file = io.BytesIO()
    torch.save(without(""), file, _use_new_zipfile_serialization=zipped)
    data = file.getvalue()
    for length in (*range(0, 64, 3), *range(64, len(data), len(data) // 60)):
        with pytest.raises(InputError) as caught:
            models.loads(data[:length], origin="cut")
        assert "cut" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_small_file_that_states_a_huge_width_allocates_nothing() -> None:
    """At these widths any allocation is refused at once by the machine, with another error."""
    repeated = saved(without("") | {"conv1.weight": torch.ones(1).expand(1_000_000, 3, 3, 3)})
    assert len(repeated) < 100_000
    with pytest.raises(InputError, match=r"expected dense floating-point weights, got conv1\.weight"):
        models.loads(repeated)
    wide = without("") | {"conv1.weight": torch.ones(1_000_000, 1, 1, 1)}
    with pytest.raises(InputError, match=r"to be \(8000000,\) in a preact-resnet-18, got \(16,\)"):
        models.loads(saved(wide))


def test_weights_are_found_beside_other_tensors() -> None:
    model = narrow("resnet-18")
    assert models.loads(saved({"loss": torch.ones(()), "net": dict(model.state_dict())}))(X).equal(model(X))


# RobustBench


def zoo(monkeypatch: pytest.MonkeyPatch, model: nn.Module) -> list[dict[str, Any]]:
    """A package `robustbench` of one model."""
    asked: list[dict[str, Any]] = []
    package, utils = types.ModuleType("robustbench"), types.ModuleType("robustbench.utils")
    utils.load_model = lambda **named: asked.append(named) or model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "robustbench", package)
    monkeypatch.setitem(sys.modules, "robustbench.utils", utils)
    return asked


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_a_model_of_the_zoo_is_found_with_its_activation(monkeypatch: pytest.MonkeyPatch, activation: str) -> None:
    model = narrow("wide-resnet-28-10", activation=activation)
    asked = zoo(monkeypatch, model)
    found = foreign.load_robustbench("Carmon2019Unlabeled@L2", "cifar10")
    assert found.architecture == model.architecture
    assert asked == [{"model_name": "Carmon2019Unlabeled", "dataset": "cifar10", "threat_model": "L2"}]


def test_a_model_of_the_zoo_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = narrow("resnet-18")
    model.register_forward_hook(lambda *_: torch.zeros(4, 7))
    zoo(monkeypatch, model)
    with pytest.raises(InputError, match="got other logits than theirs: robustbench:A"):
        foreign.load_robustbench("A")


def test_what_the_zoo_does_not_have_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo(monkeypatch, narrow())
    monkeypatch.setattr(sys.modules["robustbench.utils"], "load_model", lambda **named: {}[named["model_name"]])
    with pytest.raises(InputError, match=r"cannot load robustbench:A for cifar10: KeyError 'A'"):
        foreign.load_robustbench("A")


def test_the_zoo_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "robustbench.utils", None)
    with pytest.raises(InputError, match=r"for robustbench:A: pip install robustbench"):
        foreign.load_robustbench("A")
