"""What a sweep is: layers, validation, keys, and what the shipped spaces resolve to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.errors import InputError
from sweep import spaces
from sweep.alternatives import Alternative, Sweep, reload
from sweep.layers import resolve
from sweep.settings import nest, read_yaml
from sweep.spec import known_addresses
from trainers import models, sources
from trainers.methods import CATALOGUE

SPACES = [name for name in spaces.names() if "experiment" not in read_yaml(spaces.read(name), name)]
SEARCH = """\
method: cas
search:
  sampler.w1: {low: 2, high: 30, log: true}
  optimizer.epochs: {low: 1, high: 9, step: 2}
  optimizer.lr: {values: [0.01, 0.1]}
  sampler.w3: {low: 0, high: 2, step: 0.5}
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return str(path)


def only(sweep: Sweep) -> Alternative:
    """Of a space of one method."""
    (alternative,) = sweep.alternatives.values()
    return alternative


def faults(space: str, **overrides: Any) -> list[str]:
    """The faults that are told, without the head."""
    with pytest.raises(InputError) as caught:
        resolve(space, nest(overrides))
    first, *more = str(caught.value).split("\n  ")
    if not more:
        return [first.removeprefix(f"{space}: ")]
    assert first == f"{len(more)} faults in {space}:"
    return more


# layers


@pytest.mark.parametrize("dataset", sources.SOURCES)
@pytest.mark.parametrize("space", SPACES)
def test_every_space_resolves_for_every_data_set(space: str, dataset: str) -> None:
    sweep = resolve(space, {"dataset": dataset})

    for alternative in sweep.alternatives.values():
        trial = alternative.trial
        assert trial.dataset == dataset
        assert set(alternative.defaults()) == set(alternative.search)
        assert trial.compose().sampler
        assert trial.recipe().epochs == trial.optimizer.epochs  # type: ignore[attr-defined]
    assert sweep.searcher == "grid" or all(alternative.search for alternative in sweep.alternatives.values())


def test_a_layer_overrides_the_ones_below(tmp_path: Path) -> None:
    """sat's own file says nothing of the epochs: 20 in the catalogue, another number in the profile of digits."""
    assert CATALOGUE["sat"].settings["optimizer.epochs"] == 20
    profile = resolve("sat", {"dataset": "digits"}).trial.recipe().epochs
    assert resolve("sat", {"dataset": "cifar10"}).trial.recipe().epochs == 20
    assert profile != 20
    own = write(tmp_path, "method: sat\ndataset: digits\noptimizer.epochs: 7\n")
    assert resolve(own, {}).trial.recipe().epochs == 7
    assert resolve(own, {"dataset": "cifar10"}).trial.recipe().epochs == 7
    assert resolve(own, nest({"optimizer.epochs": 8})).trial.recipe().epochs == 8


def test_what_no_layer_says_is_the_default_of_its_part(tmp_path: Path) -> None:
    trial = resolve(write(tmp_path, "method: cas\nsampler.w1: 3\n"), nest({"sampler.w3": 0.25})).trial
    assert trial.part("sampler") == {"name": "cas", "w1": 3.0, "w2": 1.0, "w3": 0.25, "accuracy_decay": 0.9}


def test_the_methods_differ_in_what_they_train_on() -> None:
    e_at, everything = resolve("e-at", {}).trial, resolve("e-at-all", {}).trial
    assert e_at.trained() == ("linf", "l1")
    assert everything.trained() == everything.attacks == e_at.attacks
    assert {"linf", "l2", "l1", "jpeg", "hsv"} <= set(e_at.attacks)
    assert set(resolve("cas", {}).trial.families().values()) >= {"lp", "semantic"}


def test_an_averaging_may_be_swapped_and_a_part_named(tmp_path: Path) -> None:
    assert resolve(write(tmp_path, "method: cas+ema\n"), {}).trial.part("averaging")["name"] == "ema"
    named = resolve(write(tmp_path, "method: cas\naveraging.name: none\n"), {}).trial
    assert named.part("averaging") == {"name": "none"}


def test_a_budget_may_be_given(tmp_path: Path) -> None:
    trial = resolve(write(tmp_path, "method: cas\ndataset: cifar10\nepsilons: {linf: 4/255, jpeg: low}\n"), {}).trial
    assert trial.attack("linf").epsilon == pytest.approx(4 / 255)
    assert trial.attack("l2").epsilon == resolve("cas", {"dataset": "cifar10"}).trial.attack("l2").epsilon


# searching


def test_what_the_command_line_sets_is_not_searched() -> None:
    sweep = resolve("cas", nest({"sampler.w1": 7}))
    assert "sampler.w1" not in only(sweep).search
    assert set(only(sweep).search) == set(only(CAS).search) - {"sampler.w1"}
    assert sweep.configure(only(sweep).defaults()).part("sampler")["w1"] == 7
    again = resolve("cas", {"search": {"sampler.w1": {"low": 1, "high": 2}}})
    assert only(again).search["sampler.w1"].ends() == [1, 2]


OPTIONS = {
    "optimizer.lr": {"low": 0.01, "high": 0.2, "log": True},
    "optimizer.epochs": {"values": [1, 2]},
    "optimizer.weight_decay": {"low": 1e-5, "high": 1e-2, "log": True},
}


@pytest.mark.parametrize("space", SPACES)
def test_rate_epochs_and_weight_decay_may_be_searched_in_every_space(space: str) -> None:
    """As `--set search.optimizer.lr='{low: 0.01, high: 0.2, log: true}'` and so on say it."""
    sweep = resolve(space, {"dataset": "cifar10", "searcher": "random", "search": OPTIONS})
    for alternative in sweep.alternatives.values():
        assert set(OPTIONS) <= set(alternative.search)
        made = alternative.configure({"optimizer.epochs": 2, "optimizer.weight_decay": 1e-3, "optimizer.lr": 0.02})
        assert (made.recipe().epochs, made.recipe().weight_decay, made.recipe().lr) == (2, 1e-3, 0.02)


def test_trial_0_is_the_base_and_others_are_made_around_it(tmp_path: Path) -> None:
    sweep = resolve(write(tmp_path, "optimizer.lr: 0.05\n" + SEARCH), {})
    assert only(sweep).defaults() == {"sampler.w1": 10.0, "optimizer.lr": 0.05, "sampler.w3": 0.5} | {
        "optimizer.epochs": sweep.trial.recipe().epochs
    }
    assert sweep.configure(only(sweep).defaults()) == sweep.trial
    made = sweep.configure({"sampler.w1": 4.0, "optimizer.epochs": 3})
    assert (made.part("sampler")["w1"], made.recipe().epochs) == (4.0, 3)
    assert made.recipe().lr == 0.05
    with pytest.raises(InputError, match=r"^these values: sampler\.w1: expected w1 >= 0, got -1\.0$"):
        sweep.configure({"sampler.w1": -1.0})


def test_whole_numbers_are_searched_where_only_they_fit(tmp_path: Path) -> None:
    search = only(resolve(write(tmp_path, SEARCH), {})).search
    assert search["optimizer.epochs"].ends() == [1, 9]
    assert all(isinstance(end, int) for end in search["optimizer.epochs"].ends())
    assert search["sampler.w1"].ends() == [2.0, 30.0]
    padding = resolve(write(tmp_path, "method: cas\nsearch: {optimizer.crop_padding: {low: 0, high: 4}}"), {})
    assert only(padding).search["optimizer.crop_padding"].nearest(None) == 0


@pytest.mark.parametrize(
    ("address", "value", "nearest"),
    [
        ("sampler.w1", 1, 2),
        ("sampler.w1", 31, 30),
        ("sampler.w1", 7.5, 7.5),
        ("optimizer.epochs", 6.2, 7),
        ("optimizer.epochs", 20, 9),
        ("sampler.w3", 0.7, 0.5),
        ("optimizer.lr", 0.1, 0.1),
        ("optimizer.lr", 0.05, 0.01),
    ],
)
def test_the_nearest_value_that_is_searched(tmp_path: Path, address: str, value: float, nearest: float) -> None:
    assert only(resolve(write(tmp_path, SEARCH), {})).search[address].nearest(value) == nearest


def test_the_command_line_may_change_the_search(tmp_path: Path) -> None:
    sweep = resolve(write(tmp_path, SEARCH), nest({"search.sampler.w1": {"values": [1, 2]}, "searcher": "random"}))
    assert only(sweep).search["sampler.w1"].ends() == [1, 2]
    assert len(only(sweep).search) == 4
    assert sweep.searcher == "random"


# faults


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = """\
method: cas
dataset: cifar1
model: {name: preact-resnet, width: 0}
attacks: [lnf, jpeg]
epsilons: {fgo: 1}
importance: balancd
evaluation.protocol: quik
init: pretrain:l3
seed: x
trials: -3
searcher: tpee
sampler.w1: -1
sampler.d2: 1
averaging.tau: 2
optimizer: {lr: foo, epochs: 0, schedul: constant}
workers: true
foo: 1
search:
  sampler.w2: {low: 3, high: 1}
  sampler.q: {values: [1]}
  dataset: {values: [digits]}
  optimizer.flip: {low: 0, high: 1}
"""
    found = faults(write(tmp_path, text))
    for line in (
        "dataset: unknown data set 'cifar1': did you mean 'cifar10'?",
        "model.name: unknown model 'preact-resnet': did you mean 'preact-resnet-18'?",
        "model.width: expected > 0, got 0",
        "attacks.0: unknown attack 'lnf': did you mean 'linf'?",
        "epsilons.fgo: unknown attack 'fgo': did you mean 'fog'?",
        "importance: unknown importance 'balancd': did you mean 'balanced'?",
        "evaluation.protocol: unknown protocol 'quik': did you mean 'quick'?",
        "init: expected pretrain:linf, pretrain:l2, pretrain:l1, robustbench:NAME, a file or none, got 'pretrain:l3'",
        "seed: expected a whole number, got 'x'",
        "trials: expected > 0, got -3",
        "searcher: expected 'tpe', 'random', 'grid', 'gp' or 'nsga2', got 'tpee'",
        "sampler.w1: expected w1 >= 0, got -1.0",
        "sampler.d2: unknown key; known: accuracy_decay, name, w1, w2, w3",
        "optimizer.lr: expected a number, got 'foo'",
        "optimizer.epochs: expected epochs >= 1, got 0",
        "optimizer.schedul: unknown key; did you mean optimizer.schedule?",
        "workers: expected a number, got true",
        "search.sampler.w2: expected low < high, got 3.0 and 1.0",
        "search.dataset: all trials of a sweep share it: give it one value, beside search",
        "search.optimizer.flip: expected a list of values, got a range of numbers",
    ):
        assert line in found
    for start in (
        "averaging.tau: ",
        "foo: unknown key; known: attack_steps, ",
        "search: unknown address 'sampler.q': ",
    ):
        assert sum(line.startswith(start) for line in found) == 1
    assert len(found) == 23


def test_an_unknown_name_does_not_hide_the_other_faults(tmp_path: Path) -> None:
    text = "method: {}\nsampler: {{name: {}, w1: 3}}\nseed: -1\nsearch: {{sampler.w1: {{low: 1, high: 2}}}}\n"
    assert faults(write(tmp_path, text.format("cass", "cas"))) == [
        "method: unknown method 'cass': did you mean 'cas'?",
        "seed: expected >= 0, got -1",
    ]
    assert faults(write(tmp_path, text.format("cas", "sta"))) == [
        "sampler.name: unknown sampler 'sta': did you mean 'sat'?",
        "seed: expected >= 0, got -1",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "method: expected a method, got none: known: at, avg, "),
        ("method: 3", "method: unknown method '3': known: at, avg, "),
        ("method: cas+foo", "method: unknown averaging 'foo': known: ab-l1, ab-l2, ema, mde, none, ramp"),
        (
            "method: cas+ema+mde",
            "method: expected at most one of ema and mde, got 'cas+ema+mde': an averaging replaces another",
        ),
        ("attacks: linf", "attacks: expected a list, got 'linf'"),
        ("attacks: []", "attacks: expected at least one, got none"),
        ("attacks: [linf, linf]", "attacks: expected each once, got linf twice"),
        ("train_attacks: []", "train_attacks: expected at least one, got none"),
        ("init: no.safetensors", "init: cannot read the model no.safetensors: No such file or directory"),
        ("epsilons.linf: 8", "epsilons: expected epsilon <= 1, got 8 (attacks.linf): write 8/255 for grey levels"),
        ("importance: {linf: -1}", "importance: expected an importance weight >= 0 of linf, got -1"),
        ("search: [1]", "search: expected a section of keys, got [1]"),
        ("space: x", "space: unknown key; known: attack_steps, "),
    ],
)
def test_one_fault(tmp_path: Path, text: str, line: str) -> None:
    whole = text if text.startswith("method") or not text else f"method: cas\n{text}"
    (found,) = faults(write(tmp_path, whole))
    assert found == line or (line.endswith(", ") and found.startswith(line))


STEPS = "expected high - low to be a multiple of step, got 1.0 and 0.3"
LOG = "expected low > 0 and no step with log: true, got low 0.0 and step None"
SHARED = ": all trials of a sweep share it: give it one value, beside search"


@pytest.mark.parametrize(
    ("address", "searched", "line"),
    [
        ("sampler.w1", "3", ": expected a section of keys, got 3"),
        ("sampler.w1", "{low: 1, hgih: 2, high: 3}", ".hgih: unknown key; did you mean high?"),
        ("sampler.w1", "{low: 1}", ".high: expected a value, got none"),
        ("sampler.w1", "{low: true, high: 3}", ".low: expected a number, got true"),
        ("sampler.w1", "{low: -1, high: 2}", " = -1.0: expected w1 >= 0, got -1.0"),
        ("sampler.w1", "{low: 0, high: 2, log: true}", f": {LOG}"),
        ("sampler.w1", "{low: 1, high: .inf}", ".high: expected a finite number, got inf"),
        ("sampler.w1", "{low: 1, high: 2, step: 0}", ".step: expected > 0, got 0"),
        ("sampler.w1", "{low: 1, high: 2, step: 0.3}", f": {STEPS}"),
        ("sampler.w1", "{values: []}", ".values: expected at least one, got none"),
        ("sampler.w1", "{values: [1, 1]}", ".values: expected each once, got 1 twice"),
        ("sampler.w1", "{values: [[1]]}", ".values: expected text, finite numbers, true or false, got [1]"),
        ("sampler.w1", "{values: [1, x]}", " = x: expected a number, got 'x'"),
        ("sampler.w1", "{values: [1], vlaues: [2]}", ".vlaues: unknown key; did you mean values?"),
        ("optimizer.epochs", "{low: 1.5, high: 3}", ": expected whole numbers, got low 1.5, high 3.0, step None"),
        ("optimizer.lr", "{values: [-1]}", " = -1: expected lr >= 0, got -1.0"),
        ("epsilons.linf", "{low: 0.01, high: 0.1}", SHARED),
        ("seed", "{values: [1, 2]}", SHARED),
        ("sampler.name", "{values: [cas, sat]}", SHARED),
    ],
)
def test_one_fault_of_a_search(tmp_path: Path, address: str, searched: str, line: str) -> None:
    (found,) = faults(write(tmp_path, f"method: cas\nsearch.{address}: {searched}"))
    assert found == f"search.{address}{line}"


def test_a_space_that_is_not_there(tmp_path: Path) -> None:
    assert faults("cass") == ["unknown search space 'cass': did you mean 'cas'? (your own: a path that ends in .yaml)"]
    missing = str(tmp_path / "none.yaml")
    assert faults(missing) == [f"cannot read the search space {missing}: No such file or directory"]
    (tmp_path / "folder.yaml").mkdir()
    assert faults(str(tmp_path / "folder.yaml"))[0].endswith("Is a directory")
    (tmp_path / "bytes.yaml").write_bytes(b"method: \xff")
    assert "it is no UTF-8 text" in faults(str(tmp_path / "bytes.yaml"))[0]


def test_a_starting_model_is_read_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    models.save(models.create("preact-resnet-18", num_classes=10, width=2), path)
    sweep = resolve("sat", {"init": str(path)})
    path.write_bytes(path.read_bytes()[:-9])
    assert faults("sat", init=str(path))[0].startswith("init: expected a safetensors file, got a truncated")
    assert reload(sweep.model_dump(mode="json")) == sweep, "a sweep that has begun keeps its own copy"


# sweep.json


@pytest.mark.parametrize("space", SPACES)
def test_a_sweep_comes_back_from_json(space: str) -> None:
    made = resolve(space, {})
    weights = {} if len(made.alternatives) > 1 else {"importance": {made.trial.trained()[0]: 2}}
    sweep = resolve(space, nest({"epsilons.linf": "4/255", "trials": 1, **weights}))
    again = reload(json.loads(json.dumps(sweep.model_dump(mode="json"))))
    assert again == sweep
    assert again.model_dump(mode="json") == sweep.model_dump(mode="json")
    assert again.trial.key(init="i", fingerprint="f") == sweep.trial.key(init="i", fingerprint="f")


@pytest.mark.parametrize("document", [None, 3, [], {}, {"trial": 3}, {"trial": {"sampler": {"name": "cas"}}}])
def test_what_is_no_sweep_is_refused(document: Any) -> None:
    with pytest.raises(InputError, match=r"^sweep\.json holds no sweep's spec: "):
        reload(document)


def test_a_sweep_of_another_version_is_refused() -> None:
    document = resolve("cas", {}).model_dump(mode="json")
    document["alternatives"]["cas"]["trial"]["sampler"]["w9"] = 1
    with pytest.raises(InputError, match=r"^sweep\.json: sampler\.w9: unknown key"):
        reload(document)


# keys


CAS = resolve("cas", {})
OTHER: dict[str, Any] = {
    "method": "sat",
    "dataset": "digits",
    "split_seed": 1,
    "train_size": 100,
    "eval_size": 50,
    "test_size": 60,
    "model.width": 4,
    "model.activation": "softplus",
    "init": "pretrain:l1",
    "attacks": ["linf", "l2"],
    "train_attacks": ["linf"],
    "attack_steps": 3,
    "epsilons.linf": 0.01,
    "budgets.linf.epsilon": 0.1,
    "features": "self",
    "importance": "none",
    "evaluation.protocol": "full",
    "evaluation.num_steps": 3,
    "evaluation.batch_size": 16,
    "seed": 1,
    "workers": 2,
    "sampler.w1": 3,
    "averaging.tau": 0.7,
    "averaging.name": "ema",
    "optimizer.lr": 0.03,
    "optimizer.flip": True,
    "pretraining.epochs": 1,
}


def key(sweep: Sweep, init: str = "i", fingerprint: str = "f") -> str:
    return sweep.trial.key(init=init, fingerprint=fingerprint)


def test_equal_work_has_an_equal_key() -> None:
    again = resolve("cas", {})
    assert again is not CAS
    assert key(again) == key(CAS)
    spelled = resolve("cas", nest({"sampler.w1": "10", "seed": 0.0, "optimizer.momentum": 0.9}))
    assert key(spelled) == key(CAS)
    assert CAS.configure(only(CAS).defaults()).key(init="i", fingerprint="f") == key(CAS)


def test_the_search_is_no_part_of_the_key(tmp_path: Path) -> None:
    other = resolve("cas", nest({"trials": 99, "searcher": "random", "search.sampler.w1": {"values": [1]}}))
    assert key(other) == key(CAS)
    assert key(resolve(write(tmp_path, "method: cas"), {})) == key(CAS)


def test_the_epochs_judged_on_the_way_are_no_part_of_the_key() -> None:
    """And a document that judges none is as it was before that could be said."""
    other = resolve("cas", nest({"evaluation.every": 2}))
    assert other.trial.evaluation.every == 2
    assert key(other) == key(CAS)
    again = reload(json.loads(json.dumps(other.model_dump(mode="json"))))
    assert again.trial.evaluation.every == 2
    assert "every" not in CAS.trial.model_dump(mode="json")["evaluation"]


def test_any_change_of_the_work_changes_the_key(tmp_path: Path) -> None:
    space = write(tmp_path, "method: cas")
    keys = [key(resolve(space, nest({address: value}))) for address, value in OTHER.items()]
    keys += [key(CAS), key(CAS, init="j"), key(CAS, fingerprint="g")]
    assert len(set(keys)) == len(OTHER) + 3
    addresses = [address for address, _ in known_addresses(type(CAS.trial))]
    assert {a.split(".")[0] for a in addresses} - {"inner", "objective", "weighting"} == {
        a.split(".")[0] for a in OTHER
    }


def test_the_default_activation_is_not_written_so_that_older_keys_hold() -> None:
    assert CAS.trial.model_dump()["model"] == {"name": "preact-resnet-18", "width": CAS.trial.model.width}
    softplus = resolve("cas", nest({"model.activation": "softplus"}))
    again = reload(json.loads(json.dumps(softplus.model_dump(mode="json"))))
    assert again.trial.model.activation == "softplus"
    assert key(again) == key(softplus) != key(CAS)
    assert reload(json.loads(json.dumps(CAS.model_dump(mode="json")))) == CAS
    assert faults("cas", **{"model.activation": "softplsu"}) == [
        "model.activation: unknown activation 'softplsu': did you mean 'softplus'?"
    ]


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 100), st.floats(0, 100))
def test_keys_tell_values_apart(a: float, b: float) -> None:
    keys = [CAS.configure({"sampler.w1": value}).key(init="i", fingerprint="f") for value in (a, b)]
    assert (keys[0] == keys[1]) == (a == b)
