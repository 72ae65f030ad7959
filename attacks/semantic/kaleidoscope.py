"""Kaleidoscope: small coloured shapes with dark outlines lie on the darkened image."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks import noise
from attacks.base import ATTACKS
from attacks.filters import unit
from attacks.latent import LatentAttack, Scene
from attacks.semantic.hsv import hsv_to_rgb

_SHAPES = 5
_HIDDEN = 0.8  # of the image, under a shape
_OUTLINE = 5  # side of the window that widens a shape by its outline
_MARGIN = 7  # of a polygon's first corner, so that it lies inside the image
_TRIANGLE, _SQUARE, _RADIUS = 6.0, 4.0, 2.0  # edges, and the circle's radius
_LEAST_SATURATION, _LEAST_VALUE = 0.7, 0.8


@ATTACKS.register("kaleidoscope")
@dataclass(frozen=True, kw_only=True)
class Kaleidoscope(LatentAttack):
    """Latent: (B, 5 * C + H * W) in +-epsilon: changes of the shapes' colours, then |brightness| of the outlines.

    Started at U(-epsilon, epsilon) and U[0, epsilon); sign steps. Five shapes an image: circles (radius 2 px),
    equilateral triangles (edge 6 px), squares (edge 4 px), each kind as likely, rotated at random, of one random bright
    colour. Under shapes the image is darkened to 0.2, colours are added where shapes overlap, outlines (2 px, also
    those inside other shapes) are |latent|. Scene: masks (B, 5, H * W), outlines (B, 1, H, W), the darkened image,
    colours (B, 5, C). Epsilon bounds what is optimised: most of the change is the fixed shapes.

    Source: adversarial-corruptions@772509b, kaleidoscope. Deviations: polygons are exact, where the source cuts their
    corners to whole pixels and scans lines; grey images get the colours' HSV value. Sizes stay in pixels at every
    resolution, as in the source: at 32x32 the five cover 6 % of the image and their outlines 20 %, at 64x64 a quarter.
    """

    name: ClassVar[str] = "kaleidoscope"
    family: ClassVar[str] = "semantic"

    def start(self, x: Tensor, seeds: Tensor) -> tuple[Tensor, Scene]:
        channels, height, width = x.shape[1:]
        if channels not in (1, 3) or min(height, width) <= 2 * _MARGIN:
            raise self.refuse(f"1 or 3 channels of at least 15x15, got {channels} of {height}x{width}")
        latent = noise.uniform(seeds, 0, (_SHAPES * channels + height * width,))
        latent[:, : _SHAPES * channels].mul_(2).sub_(1)
        draws = noise.uniform(seeds, 1, (7, _SHAPES))
        masks = shapes(draws[:, :4], height, width).to(x.dtype)
        outlines = (F.max_pool2d(masks, _OUTLINE, 1, _OUTLINE // 2) > masks).any(1, keepdim=True)
        darkened = x * (1 - _HIDDEN * masks.amax(1, keepdim=True))
        return self.epsilon * latent, (masks.flatten(2), outlines, darkened, _colours(draws[:, 4:], channels))

    def render(self, x: Tensor, latent: Tensor, scene: Scene) -> Tensor:
        masks, outlines, darkened, colours = scene
        change, brightness = latent.tensor_split([colours.shape[1] * colours.shape[2]], dim=1)
        painted = torch.baddbmm(darkened.flatten(2), (colours + change.reshape(colours.shape)).mT, masks)
        return unit(torch.where(outlines, brightness.abs().reshape(outlines.shape), painted.reshape(x.shape)))

    def project(self, latent: Tensor, scene: Scene) -> Tensor:
        return latent.clamp(-self.epsilon, self.epsilon)


def shapes(draws: Tensor, height: int, width: int) -> Tensor:
    """(B, 4, 5) of U[0, 1) to (B, 5, H, W) bool: kind, row and column of the anchor, angle.

    The anchor is a circle's centre, on a pixel, or a polygon's first corner, at that angle from the middle.
    """
    sides, radius, limit = _kinds(draws.device)[(3 * draws[:, 0]).long()].unbind(-1)
    circle, angle = sides == 0, 2 * math.pi * draws[:, 3]
    out = torch.stack([angle.sin(), angle.cos()], 1)
    room, whole = _room(height, width, draws.device), circle[:, None]
    place = draws[:, 1:3] * torch.where(whole, room, room - 1 - 2 * _MARGIN)
    place = torch.where(whole, place.floor(), place + _MARGIN - radius[:, None] * out)
    return _distance(place, sides, angle, height, width) < limit[..., None, None]


def _distance(middle: Tensor, sides: Tensor, angle: Tensor, height: int, width: int) -> Tensor:
    """(B, 5, H, W): from the middle (B, 2, 5), along the normal of the side that faces the pixel; plain if circle."""
    down = torch.arange(height, device=middle.device)[:, None] - middle[:, 0, :, None, None]
    right = torch.arange(width, device=middle.device) - middle[:, 1, :, None, None]
    half = math.pi / sides[..., None].clamp_min(1)
    normal = angle[..., None] + half * (1 + 2 * torch.arange(4, device=middle.device))  # a triangle's first comes twice
    sine, cosine = normal.sin()[..., None, None], normal.cos()[..., None, None]
    facing = (down[:, :, None] * sine + right[:, :, None] * cosine).amax(2)
    return torch.where((sides == 0)[..., None, None], torch.hypot(down, right), facing)


@functools.lru_cache(maxsize=8)
def _kinds(device: torch.device) -> Tensor:
    """Sides, radius to the corners and distance to the border of circle, triangle and square."""
    triangle, square = _TRIANGLE / math.sqrt(3), _SQUARE / math.sqrt(2)
    return torch.tensor([[0, 0, _RADIUS], [3, triangle, triangle / 2], [4, square, _SQUARE / 2]], device=device)


@functools.lru_cache(maxsize=16)
def _room(height: int, width: int, device: torch.device) -> Tensor:
    return torch.tensor([[height], [width]], device=device)


def _colours(draws: Tensor, channels: int) -> Tensor:
    """(B, 3, 5) of U[0, 1) to (B, 5, C): any hue, saturated and bright; only the value for one channel."""
    hue, saturation, value = draws.unbind(1)
    saturation = _LEAST_SATURATION + (1 - _LEAST_SATURATION) * saturation
    value = _LEAST_VALUE + (1 - _LEAST_VALUE) * value
    if channels == 1:
        return value[..., None]
    return hsv_to_rgb(torch.stack([hue, saturation, value], 1)[..., None])[..., 0].mT
