"""Two real processes that train one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from trainer_toys import flat_prior, same, told, toy_attacks, toy_images, toy_net, tune

from trainers.checkpoint import Folder
from trainers.recipe import Recipe
from trainers.workers import Workers

NAMES = ("cas", "sat+ema", "vir-at")


@given(st.integers(0, 200), st.integers(1, 9))
def test_shares_are_a_partition_into_like_parts(size: int, count: int) -> None:
    shares = [list(range(size))[Workers(rank, count).share(size)] for rank in range(count)]
    assert [n for share in shares for n in share] == list(range(size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def smooth_net() -> nn.Module:
    """Without batch norm: two workers' mean gradient is that of one. Smooth: rounding stays small."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))


def train(name: str, kind: str, workers: Workers, files: Folder | None = None, epochs: int = 1, stop: int = 9) -> Any:
    """One epoch of 47 images in three batches of 15 or 16, a share of which is odd. Ranks bring priors that differ."""
    images, of = toy_images(47), toy_attacks("pgd-l2", "fog", "hsv")
    prior = flat_prior(images, of)
    prior.accuracy.fill_(0.1 if workers.rank == 0 else 0.9)
    prior.accuracy[workers.rank] = 0.4
    model = smooth_net() if kind == "smooth" else toy_net()
    recipe = Recipe(epochs=epochs, batch_size=16, lr=0.05, schedule="constant")
    report = lambda epoch, history: epoch < stop  # noqa: E731
    return tune(name, model, images, of, recipe, prior=prior, workers=workers, files=files, report=report)


def child(rank: int, count: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
    workers, out = Workers(rank, count), {}
    for name in NAMES:
        for kind in ("smooth", "batch norm"):
            out[name, kind] = outcome(train(name, kind, workers))
    whole = outcome(train("cas", "batch norm", workers, epochs=2))
    files = Folder(Path(folder) / "run")
    train("cas", "batch norm", workers, files, epochs=2, stop=1)
    torch.distributed.barrier()
    out["resumed", "batch norm"] = outcome(train("cas", "batch norm", workers, files, epochs=2))
    out["whole", "batch norm"] = whole
    torch.save(out, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def outcome(fitted: Any) -> dict[str, Any]:
    return {"live": fitted.model.state_dict(), "averaged": fitted.averaged, "history": told(fitted.history)}


Outcomes = list[dict[tuple[str, str], dict[str, Any]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("ddp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        patch.setenv("OMP_NUM_THREADS", "1")
        spawn(child, (2, str(folder)), nprocs=2)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("kind", ["smooth", "batch norm"])
@pytest.mark.parametrize("name", NAMES)
def test_both_ranks_hold_the_same_to_the_last_bit(ranks: Outcomes, name: str, kind: str) -> None:
    """Weights, batch-norm statistics, averages, and what the sampler saw."""
    one, two = (rank[name, kind] for rank in ranks)
    assert same(one["live"], two["live"])
    assert same(one["averaged"], two["averaged"])
    assert one["history"] == two["history"]


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.allclose(a[name], b[name], rtol=1e-4, atol=1e-5) for name in b)


@pytest.mark.parametrize("name", NAMES)
def test_two_workers_train_what_one_trains(ranks: Outcomes, name: str) -> None:
    one, two = outcome(train(name, "smooth", Workers())), ranks[0][name, "smooth"]
    assert close(two["live"], one["live"])
    assert close(two["averaged"] or {}, one["averaged"] or {})
    assert not close(two["live"], smooth_net().state_dict())
    for a, b in zip(two["history"], one["history"], strict=True):
        assert a["counts"] == b["counts"]
        assert a["probabilities"] == pytest.approx(b["probabilities"], rel=1e-3)
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert ("class_weights" in a) == (name == "vir-at")
        assert a.get("class_weights", {}) == pytest.approx(b.get("class_weights", {}), rel=1e-3)


def test_two_workers_resume_to_the_last_bit(ranks: Outcomes) -> None:
    for rank in ranks:
        whole, resumed = rank["whole", "batch norm"], rank["resumed", "batch norm"]
        assert same(resumed["live"], whole["live"])
        assert same(resumed["averaged"], whole["averaged"])
        assert resumed["history"] == whole["history"]
