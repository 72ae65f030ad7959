"""What an epoch's batches added up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from trainers.parts import Gain, Seen, State


@dataclass
class Tally:
    """Sums over one epoch, and each attack's last known robust accuracy on its training batches. `counts` are the
    batches for which an attack was chosen. A view that several attacks made together is in the totals only, the last
    column."""

    attacks: tuple[str, ...]
    accuracy: Tensor | None

    def __post_init__(self) -> None:
        unknown = torch.full((len(self.attacks),), torch.nan, dtype=torch.float64)
        self._known = unknown if self.accuracy is None else self.accuracy.double().clone()

    def open(self) -> None:
        self._batches = 0
        self._probability = torch.zeros(len(self.attacks), dtype=torch.float64)
        self._counts = dict.fromkeys(self.attacks, 0)
        self._sums = torch.zeros(3, len(self.attacks) + 1, dtype=torch.float64)  # images, correct, cross entropy

    def offered(self, probabilities: Mapping[str, float], chosen: Sequence[str]) -> None:
        self._batches += 1
        self._probability += torch.tensor([probabilities[a] for a in self.attacks], dtype=torch.float64)
        for name in chosen:
            self._counts[name] += 1

    def saw(self, seen: Sequence[Seen]) -> None:
        for s in seen:
            column = torch.tensor([len(s.ce), s.correct.sum(), s.ce.double().sum()], dtype=torch.float64)
            place = self.attacks.index(s.attack) if s.attack in self.attacks else -1
            self._sums[:, place] += column

    def gain(self) -> Gain:
        """The change of each attack's training accuracy since it was last known, 0 where it was not; the standard error
        counts this epoch's binomial noise and as much again for the one before."""
        images, correct, _ = self._sums[:, :-1]
        now = torch.where(images > 0, correct / images.clamp(min=1), self._known)
        change = (now - self._known).nan_to_num(0.0)
        noise = 2 * (now * (1 - now)).nan_to_num(0.0) / images.clamp(min=1) * (images > 0)
        self._known = now
        return Gain(float(change.mean()), float(noise.sum().sqrt() / len(self.attacks)))

    def record(self) -> dict[str, Any]:
        images, correct, ce = self._sums
        met = [j for j in range(len(self.attacks)) if images[j] > 0]

        def by_attack(values: Tensor) -> dict[str, float]:
            return {self.attacks[j]: float(values[j]) for j in met}

        return {
            "train_loss": float(ce.sum() / images.sum()),
            "train_accuracy": float(correct.sum() / images.sum()),
            "probabilities": dict(zip(self.attacks, (self._probability / self._batches).tolist(), strict=True)),
            "counts": {name: n for name, n in self._counts.items() if n},
            "robust": by_attack(correct / images),
            "losses": by_attack(ce / images),
        }

    def state_dict(self) -> State:
        return {"known": self._known}

    def load_state_dict(self, state: State) -> None:
        self._known = state["known"].clone()


class ClassWeights:
    """What a weighting gave to the images of each class since the last record."""

    def __init__(self) -> None:
        self._sums = torch.zeros(2, 0, dtype=torch.float64)  # weights, images

    def saw(self, weights: Tensor, labels: Tensor) -> None:
        """One batch: (B,) each, on the CPU."""
        at = labels.long()
        new = torch.stack([torch.bincount(at, weights.double()), torch.bincount(at).double()])
        size = max(new.shape[1], self._sums.shape[1])
        self._sums = pad(self._sums, (0, size - self._sums.shape[1])) + pad(new, (0, size - new.shape[1]))

    def record(self) -> dict[str, Any]:
        """The mean weight of each class that was met; nothing where no weighting weighed."""
        weights, images = self._sums.tolist()
        self._sums = self._sums[:, :0]
        found = {str(c): w / n for c, (w, n) in enumerate(zip(weights, images, strict=True)) if n}
        return {"class_weights": found} if found else {}
