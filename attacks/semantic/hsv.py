"""HSV: a smooth change of hue, saturation and value by at most epsilon each."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks import noise
from attacks.base import ATTACKS
from attacks.filters import gaussian, unit
from attacks.latent import LatentAttack, Scene

_TAPS, _SIGMA = 3, 3.0


@ATTACKS.register("hsv")
@dataclass(frozen=True, kw_only=True)
class HSV(LatentAttack):
    """Latent: (B, 3, H, W) in +-epsilon, started at epsilon * U[0, 1), sign steps, blurred before it is added.

    Source: adversarial-corruptions@772509b, hsv; the hue is clamped to [0, 1], not wrapped. A grey image has only its
    value changed. The conversion back is the closed form v - v s clamp(2 - |k - 2|, 0, 1), k = (n + 6 hue) mod 6.
    """

    name: ClassVar[str] = "hsv"
    family: ClassVar[str] = "semantic"

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        channels, height, width = x.shape[1:]
        if channels not in (1, 3) or min(height, width) < 2:
            raise self.refuse(f"1 or 3 channels of at least 2x2, got {channels} of {height}x{width}")
        latent = self.epsilon * noise.uniform(seeds, 0, (channels, height, width))
        return latent, (rgb_to_hsv(x) if channels == 3 else x,)

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        rows, columns = (gaussian(size, _TAPS, _SIGMA, x.device).to(x.dtype) for size in x.shape[2:])
        changed = unit(scene[0] + rows @ latent @ columns.T)
        return hsv_to_rgb(changed) if x.shape[1] == 3 else changed

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent.clamp(-self.epsilon, self.epsilon)


def rgb_to_hsv(x: Tensor) -> Tensor:
    """(B, 3, H, W) to the same shape, all in [0, 1]; hue and saturation are 0 where there is no colour."""
    red, green, blue = x.unbind(1)
    value, least = x.amax(1), x.amin(1)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, 1)
    from_red, from_green = ((green - blue) / safe) % 6, (blue - red) / safe + 2
    hue = torch.where(red == value, from_red, torch.where(green == value, from_green, (red - green) / safe + 4)) / 6
    return torch.stack([hue, chroma / torch.where(value > 0, value, 1), value], 1)


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    hue, saturation, value = hsv[:, :1], hsv[:, 1:2], hsv[:, 2:]
    k = torch.remainder(torch.add(_turns(hsv.device).to(hsv.dtype), hue, alpha=6), 6)
    return torch.addcmul(value, value * saturation, unit(2 - (k - 2).abs()), value=-1)


@functools.lru_cache(maxsize=8)
def _turns(device: torch.device) -> Tensor:
    """n of red, green and blue, (1, 3, 1, 1)."""
    return torch.tensor([5.0, 3.0, 1.0], device=device)[None, :, None, None]
