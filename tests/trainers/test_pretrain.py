"""Pre-training of the starting model, and that a kill does not cost its clean epochs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_toys import same, toy_attacks, toy_images, toy_net

from attacks.errors import InputError
from trainers.checkpoint import Folder
from trainers.pretrain import Pretraining, pretrain

RECIPE = Pretraining(epochs=2, clean_epochs=3, attack_steps=2, batch_size=16, lr=0.1)
(LINF,) = toy_attacks("linf").values()


def made(files: Folder | None = None, report: Any = None, recipe: Pretraining = RECIPE) -> dict[str, torch.Tensor]:
    model = toy_net()
    pretrain(model, toy_images(), LINF, recipe, seed=0, files=files, report=report)
    return model.state_dict()


def test_clean_epochs_come_first_and_are_not_attacked() -> None:
    told: list[int] = []

    def report(epoch: int, history: list[dict[str, Any]]) -> bool:
        told.append(epoch)
        return True

    class Counted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.modes = toy_net(), ""

        def forward(self, x: torch.Tensor) -> Any:
            self.modes += "t" if self.training else "e"
            return self.net(x)

    model = Counted()
    pretrain(model, toy_images(), LINF, RECIPE, seed=0, report=report)
    # three batches an epoch: three clean epochs, then two of APGD's 2 + 1 forwards and one in train mode
    assert model.modes == "t" * 9 + "eeet" * 6
    assert told == [1, 2]


def test_it_learns() -> None:
    model, images = toy_net(), toy_images()
    recipe = Pretraining(epochs=1, clean_epochs=8, attack_steps=1, batch_size=16, lr=0.1)
    pretrain(model, images, LINF, recipe, seed=0)
    model.eval()
    with torch.no_grad():
        right = model(images.floats(torch.arange(48))).argmax(1) == images.labels
    assert float(right.float().mean()) > 0.6


def test_a_killed_run_goes_on_at_its_last_adversarial_epoch(tmp_path: Path) -> None:
    whole, files = made(), Folder(tmp_path)
    part = made(files, lambda epoch, history: False)
    assert not same(part, whole)
    assert same(made(files), whole)


@pytest.mark.parametrize("left", ["weights.safetensors", "state.json"])
def test_half_a_first_checkpoint_does_not_skip_the_clean_epochs(
    left: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, files = made(), Folder(tmp_path)
    made(files, lambda epoch, history: False)
    for path in (tmp_path / "1").iterdir():
        if path.name != left:
            path.unlink()
    with caplog.at_level(logging.WARNING):
        assert same(made(files), whole)
    assert "does not verify" in caplog.text


def test_settings_out_of_range_are_refused() -> None:
    for name, value in (("clean_epochs", -1), ("attack_steps", 0), ("epochs", 0)):
        wrong: dict[str, Any] = {name: value}
        with pytest.raises(InputError, match=f"{name} >= "):
            Pretraining(**wrong)
