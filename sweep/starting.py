"""The starting model of a sweep: pre-trained here, read from a file, or fresh."""

from __future__ import annotations

from collections.abc import Callable

import torch

from attacks.errors import InputError
from sweep import engine, priors, trial
from sweep.spec import FRESH, TrialBase, digest, is_made_here, read_start
from sweep.storage import Storage
from sweep.store import Store
from trainers import models, tradeoff
from trainers.data import Dataset
from trainers.models import io
from trainers.pretrain import pretrain

Say = Callable[[str], None]


def starting_model(store: Store, base: TrialBase, images: Dataset, granted: engine.Resources, say: Say) -> bytes:
    """The weights that every trial starts from. The sweep keeps its own copy, so that a resumed sweep starts from the
    same bits; pre-trained ones are also shared by all sweeps of a storage, by what they are made of."""
    try:
        return store.folder.read("init.safetensors")
    except FileNotFoundError:
        weights = _make_init(store, base, images, granted, say)
        store.folder.write("init.safetensors", weights)
        return weights


def _make_init(store: Store, base: TrialBase, images: Dataset, granted: engine.Resources, say: Say) -> bytes:
    if base.init == FRESH:
        return io.dumps(fresh_model(base, images))
    if not is_made_here(base.init):
        return io.dumps(read_start(base.init, base.dataset))
    norm = base.init.partition(":")[2]
    name = f"pretrain-{pretraining_key(base, images.fingerprint, norm)}"
    cache = store.storage.child("cache")
    try:
        return cache.read(f"{name}.safetensors")
    except FileNotFoundError:
        say(f"pre-training the starting model under {norm} (once: it is kept in {cache.where()})")
        made: bytes = engine.wait([engine.remote(make_pretrained, granted, base, images, cache, name)])[0]
        return made


def pretraining_key(base: TrialBase, fingerprint: str, norm: str) -> str:
    attack = base.attack(norm).with_steps(base.pretrain_recipe().attack_steps)
    settings = base.pretrain_recipe()
    return digest([base.model.model_dump(), repr(settings), repr(attack), base.seed, fingerprint])


def make_pretrained(base: TrialBase, images: Dataset, cache: Storage, name: str) -> bytes:
    """Pre-trains and puts the model into the cache; a killed run goes on from its own checkpoints there."""
    model = trial.placed(fresh_model(base, images))
    recipe = priors.augmented(base.pretrain_recipe(), base.dataset)
    files = cache.child(f"{name}-checkpoints")
    norm = base.init.partition(":")[2]
    pretrain(model, images.train.to(trial.device()), base.attack(norm), recipe, seed=base.seed, files=files)
    weights = io.dumps(model)
    cache.write(f"{name}.safetensors", weights)
    cache.delete(f"{name}-checkpoints")
    return weights


def fresh_model(base: TrialBase, images: Dataset) -> torch.nn.Module:
    """A new model for the data, its weights drawn from the trial's seed."""
    return models.create(
        base.model.name,
        num_classes=images.num_classes,
        in_channels=images.shape[0],
        width=base.model.width,
        seed=base.seed,
        activation=base.model.activation,
    )


def expect_start(base: TrialBase, images: Dataset) -> None:
    """Refuses, before anything is written, a starting model that does not fit the data, or too few data for phase I."""
    if not is_made_here(base.init):
        expect_fit(read_start(base.init, base.dataset), images, base.init)
    if base.compose().sampler.needs_prior:
        tradeoff.expect_enough(len(images.train), len(base.trained()))


def expect_fit(model: torch.nn.Module, images: Dataset, path: str) -> None:
    """Refuses a starting model that does not take these images or has other classes."""
    model.eval()
    try:
        with torch.no_grad():
            logits = model(images.train.floats(torch.arange(1)))
    except RuntimeError as e:
        raise InputError(f"{path} does not take the images of {images.name}: {str(e).splitlines()[0]}") from e
    if logits.shape[1] != images.num_classes:
        raise InputError(f"expected {images.num_classes} classes for {images.name}, got {logits.shape[1]} from {path}")
