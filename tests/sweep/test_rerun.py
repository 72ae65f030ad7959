"""SWEEP/NUMBER and what it names, and the command that does it again: the same keys, resolved without running."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from judgements import end, sweep_of
from shells import Shell

from attacks.errors import InputError
from sweep import alternatives
from sweep.analysis import reference, rerun
from sweep.candidates import hashed
from sweep.cli import run
from sweep.layers import resolve
from sweep.settings import assignment, nest
from sweep.storage import Storage
from sweep.store import Store


def keys(store: Store, start: Store) -> set[str]:
    """Of the runs that a sweep without anything to search would begin with, from the starting model of another one."""
    document = store.document()
    sweep = alternatives.reload(document["spec"])
    assert (sweep.trials, [one.search for one in sweep.alternatives.values()]) == (1, [{}])
    init = hashed(start.folder.read("init.safetensors"))
    return {sweep.configure({}, seed).key(init=init, fingerprint=document["fingerprint"]) for seed in sweep.seeds}


@pytest.mark.parametrize("number", range(5))
def test_the_command_makes_the_keys_that_were(sweep: Shell, swept: Store, number: int) -> None:
    found = reference.find(f"fixture/{number}", swept.storage)
    sweep.patch.setattr(run, "drive", lambda *_: None)
    words = shlex.split(rerun.command(found))
    assert words[:4] == ["python", "-m", "sweep", "run"]
    assert words[-2:] == ["--storage", swept.storage.where()]
    answer = sweep(*words[3:-2], "--id", "again")
    assert (answer.code, answer.out) == (0, "again\n"), answer.err
    made = Store(Storage(str(sweep.results)), "again")
    assert keys(made, swept) == {row["key"] for row in swept.trials().to_pylist() if row["number"] == number}


SPACES = {
    "numbers": "method: sat\nmodel.name: resnet-18\nmodel.width: 4\nsearch: {optimizer.lr: {low: 1e-5, high: 1}}",
    "attacks": "method: max\ntrain_attacks: [linf, l1]\nattacks: [linf, l1, blur]\nimportance: {linf: 2, l1: 1}",
    "another part": "method: cas\naveraging.name: ema\nattacks: [linf, l1]\nsearch: {sampler.w1: {values: [1, 7]}}",
    "budgets": "method: trades\nattacks: [pgd-linf]\nepsilons: {pgd-linf: 0.125}\noptimizer.crop_padding: 0",
    "a file to start from": "method: sat\ninit: pretrain:l2\ndataset: digits-photo\nfeatures: self",
    "adaptive budgets": "method: max+ab-l2\ntrain_attacks: [linf, l2, l1]",
}


@pytest.mark.parametrize("name", SPACES)
def test_it_states_whatever_differs(tmp_path: Path, name: str) -> None:
    """Any space of one method: what the command resolves to is the trial, to the last setting."""
    dataset = {} if "dataset" in SPACES[name] else {"dataset": "digits"}
    store = sweep_of(tmp_path, SPACES[name] + "\n", **dataset)
    sweep = alternatives.reload(store.document()["spec"])
    params = {address: one.ends()[1] for address, one in next(iter(sweep.alternatives.values())).search.items()}
    end(store, 0, params, [0.5, 0.6])
    words = rerun.arguments(reference.find("s/0", store.storage))
    assert words[1:5] == ["--trials", "1", "--seeds", "0,1"]
    assert words[5::2] == ["--set"] * len(words[5::2])
    again = resolve(words[0], nest(dict(map(assignment, words[6::2])))).trial
    assert again == sweep.configure(params)
    assert again.key(init="i", fingerprint="f") == sweep.configure(params).key(init="i", fingerprint="f")


def test_what_a_text_names(tmp_path: Path) -> None:
    store = sweep_of(tmp_path, "method: sat\ndataset: digits\nsearch: {optimizer.lr: {low: 0.01, high: 1}}\n")

    def refused(text: str) -> str:
        with pytest.raises(InputError) as told:
            reference.find(text, store.storage)
        return str(told.value)

    assert refused("s/0") == "expected pretrained after s/, got '0'"
    assert refused("s").startswith("no trial of s is COMPLETE yet: see `python -m sweep status s")
    end(store, 0, {"optimizer.lr": 0.1}, [0.2, 0.4])
    end(store, 1, {"optimizer.lr": 0.2}, [0.5, 0.5])
    end(store, 2, {"optimizer.lr": 0.3}, [0.9], state="FAILED")
    assert [reference.find(text, store.storage).number for text in ("s/0", "s/best", "s", "s/2", "s/pretrained")] == [
        0, 1, 1, 2, None
    ]  # fmt: skip
    found = reference.find("s/0", store.storage)
    assert (found.name, found.outcome()) == ("s/0", ("COMPLETE", pytest.approx(0.3)))
    assert [row["seed"] for row in found.own] == [0, 1]
    assert reference.find("s/2", store.storage).outcome() == ("FAILED", None)
    assert refused("s/3") == "expected pretrained, best or 0 to 2 after s/, got '3'"
    assert refused("t/0") == "unknown sweep 't': known: s"
    assert refused("s/0/0").endswith("got '0/0'")
    assert refused("../s/0").startswith("expected a sweep id of letters")
