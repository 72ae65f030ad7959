"""Wrong use: exit code 2, one message for each fault, no traceback, nothing written, Ray not started."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from shells import Shell

from attacks.errors import InputError
from sweep import cli
from sweep.store import Store

VERBS = [str(command.name) for command in cli.app.registered_commands]
OF_A_SWEEP = [
    *("resume none", "extend none --trials 1", "stop none", "cancel none", "gc none", "status none", "logs none 0"),
    *("best none", "table none", "report none", "show none/0", "diff none/0 none/1", "pareto none", "importance none"),
    *("compact none", "export none --to tensorboard:board"),
]


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_of_any_verb_is_wrong_use(sweep: Shell, verb: str) -> None:
    assert sweep.refused(verb, "--nonsense").startswith("No such option: --nonsense")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rnu", "No such command 'rnu'. Did you mean 'run'? "),
        ("run", "Missing argument 'space'. "),
        ("run cas --trails 3", "No such option: --trails"),
        ("run cas --trials x", "Invalid value for '--trials': "),
        ("run cas --trials 1.5", "Invalid value for '--trials': "),
        ("run cas --max-concurrent -1", "expected --max-concurrent auto or a whole number from 1 to 10000, got '-1'"),
        ("run cas --trials-per-gpu 0", "expected --trials-per-gpu auto or a whole number from 1 to 10000, got '0'"),
        (
            "run cas --trials-per-gpu 2 --gpus-per-worker 1",
            "expected --trials-per-gpu or --gpus-per-worker, got both: ",
        ),
        ("run cas --cpus-per-worker 0", "Invalid value for '--cpus-per-worker': "),
        ("run cass", "unknown search space 'cass': did you mean 'cas'? "),
        ("run none.yaml", "cannot read the search space none.yaml: No such file or directory"),
        ("run cas --dataset cifar1", "cas: dataset: unknown data set 'cifar1': did you mean 'cifar10'?"),
        ("run cas --attacks linf,jpg", "cas: attacks.1: unknown attack 'jpg': did you mean 'jpeg'?"),
        ("run cas --attacks ,", "cas: attacks: expected at least one, got none"),
        ("run cas --set method=cass", "cas: method: unknown method 'cass': did you mean 'cas'?"),
        ("run cas --set sampler.w1", "expected --set ADDRESS=VALUE, got 'sampler.w1'"),
        ("run cas --set =3", "expected --set ADDRESS=VALUE, got '=3'"),
        ("run cas --set sampler.w1=[", "expected a YAML value after sampler.w1=, got '['"),
        ("run cas --set optimzer.lr=1", "cas: optimzer: unknown key; did you mean optimizer?"),
        ("run cas --set optimizer.epoch=1", "cas: optimizer.epoch: unknown key; did you mean optimizer.epochs?"),
        ("run cas --set batch_size=3", "cas: batch_size: unknown key; did you mean evaluation.batch_size or optimizer"),
        ("run cas --set evaluation.every=-1", "cas: evaluation.every: expected >= 0, got -1"),
        ("run cas --set sampler.w1=-1", "cas: sampler.w1: expected w1 >= 0, got -1.0"),
        ("run cas --set optimizer.lr=x", "cas: optimizer.lr: expected a number, got 'x'"),
        ("run cas --set search.seed={values: [1, 2]}", "cas: search.seed: all trials of a sweep share it: "),
        ("run cas --trials 0", "cas: trials: expected > 0, got 0"),
        ("run cas --width 0", "cas: model.width: expected > 0, got 0"),
        ("run cas --model resnet", "cas: model.name: unknown model 'resnet': "),
        ("run cas --lr -1", "cas: optimizer.lr: expected lr >= 0, got -1.0"),
        ("run cas --epochs 0", "cas: optimizer.epochs: expected epochs >= 1, got 0"),
        ("run cas --seed -1", "cas: seed: expected >= 0, got -1"),
        (
            "run cas --init pretrain:l3",
            "cas: init: expected pretrain:linf, pretrain:l2, pretrain:l1, ",
        ),
        ("run cas --init no.safetensors", "cas: init: cannot read the model no.safetensors: "),
        ("run cas --id a/b", "expected a sweep id of letters, digits and . _ = + -, got 'a/b'"),
        ("run cas --train-size 10000000", "expected 0 < train_size <= "),
        ("run cas --dataset cifar10 --data-root nowhere", "expected cifar10 in the folder "),
        ("run cas --storage nosuch://x", "cannot open nosuch://x: "),
        (
            "run cas --attacks linf --set epsilons.linf=8",
            "cas: epsilons: expected epsilon <= 1, got 8 (attacks.linf): write 8/255",
        ),
        (
            "run cas --set epsilons.linf=half",
            "cas: epsilons: expected epsilon to be a number, a fraction such as 8/255, ",
        ),
        ("run cas --set budgets.linf.epsilom=0.1", "cas: budgets: unknown key of a budget of linf 'epsilom': did you"),
        ("run cas --budgets none.yaml", "cannot read the budgets none.yaml: "),
        ("run cas --set features=none.pth", "cas: features: cannot read AlexNet"),
        ("evaluate none.safetensors --dataset digits", "cannot read the model none.safetensors: "),
        ("evaluate s/best --dataset digits", "cannot read the model s/best: "),
        (
            "calibrate --model none.safetensors --out b.yaml --dataset digits",
            "cannot read the model none.safetensors: ",
        ),
        (
            "calibrate --model m.safetensors --out b.yaml --target 0.6:0.2",
            "expected a target LOW:HIGH with 0 <= LOW < HIGH",
        ),
        ("calibrate --model m.safetensors --out b.yaml --target 0.6", "expected a target such as 0.2:0.6, got '0.6'"),
        (
            "calibrate --model m.safetensors --out no/where/b.yaml",
            "expected a folder for --out, got no/where, which is none",
        ),
        ("bench trainers", "expected `bench attacks`, got 'trainers'"),
        ("bench attacks --attacks jpg", "unknown attack 'jpg': did you mean 'jpeg'?"),
        *((words, "unknown sweep 'none': known: none") for words in OF_A_SWEEP),
        ("query --id none select+1+from+trials", "unknown sweep 'none': known: none"),
        ("query delete+from+trials", "expected a SELECT, WITH or EXPLAIN, got DELETE: results are read-only here"),
        ("ls --format jsn", "unknown format 'jsn': did you mean 'json'?"),
        ("doctor --format jsn", "unknown format 'jsn': did you mean 'json'?"),
        ("attacks --dataset cifar1", "unknown data set 'cifar1': did you mean 'cifar10'?"),
    ],
)
def test_wrong_use_is_one_line(sweep: Shell, arguments: str, message: str) -> None:
    words = arguments.split(" ", maxsplit=3 if "{" in arguments else -1)
    told = sweep.refused(*(word.replace("+", " ") for word in words))
    assert told.startswith(message)
    assert "\n" not in told


@pytest.mark.parametrize("scales", ["", "0", "-1", "a", "1,1", "nan", "inf", "1,,2"])
def test_scales_that_make_no_sense_are_refused(sweep: Shell, scales: str) -> None:
    told = sweep.refused("evaluate", "m.safetensors", "--dataset", "digits", f"--scales={scales}")
    assert told == f"expected --scales as different numbers above 0, such as 0.25,0.5,1,2, got {scales!r}"


def test_an_empty_id_is_no_id(sweep: Shell) -> None:
    assert sweep.refused("run", "cas", "--id", "").startswith("expected a sweep id of letters, ")


def test_several_faults_are_told_at_once(sweep: Shell) -> None:
    space = sweep.write("method: cas\nsampler.w1: -1\nattacks: [lnf]\nsearch.sampler.w2: {low: 2, high: 1}\n")
    told = sweep.refused("run", space, "--seed", "-1", "--set", "model.width=true", "--trials", "0")
    assert told.splitlines() == [
        f"6 faults in {space}:",
        "  model.width: expected a number, got true",
        "  attacks.0: unknown attack 'lnf': did you mean 'linf'?",
        "  seed: expected >= 0, got -1",
        "  sampler.w1: expected w1 >= 0, got -1.0",
        "  search.sampler.w2: expected low < high, got 2.0 and 1.0",
        "  trials: expected > 0, got 0",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: cas\nseed: 1\nseed: 2\n", "is not valid YAML: seed is given twice (line 1)"),
        ("method: cas\nsampler: {w1: 1}\nsampler.w1: 2\n", "sampler.w1 is given twice"),
        ("method: [\n", "is not valid YAML: while parsing"),
        ("- cas\n", "expected a mapping at the top of "),
        ("", "method: expected a method, got none: known: at, avg"),
    ],
)
def test_an_unsound_file_is_one_line(sweep: Shell, text: str, message: str) -> None:
    told = sweep.refused("run", sweep.write(text))
    assert message in told
    assert "\n" not in told


@pytest.mark.parametrize("arguments", ["ls", "status s", "best s", "table s", "resume s", "query select+1+from+trials"])
def test_a_storage_that_cannot_be_read_is_one_line(sweep: Shell, arguments: str) -> None:
    sweep.results.write_text("a file")
    told = sweep.refused(*(word.replace("+", " ") for word in arguments.split()))
    assert told.endswith("Not a directory (set --storage or $SWEEP_STORAGE)")
    assert "\n" not in told


def test_an_id_that_exists_is_refused(sweep: Shell, finished: Store) -> None:
    told = sweep.refused("run", "sat", "--dataset", "digits", "--id", "s")
    assert told.startswith(f"sweep 's' exists in {sweep.results}: choose another id, or: python -m sweep resume s")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--constraint", "clean > 2"),
            "cas: constraints: expected METRIC >= NUMBER or <=, from 0 to 1, such as clean >=",
        ),
        (("--objectives", "clean,wurst"), "cas: objectives: unknown metric 'wurst': did you mean 'worst'?"),
        (("--searcher", "tpee"), "cas: searcher: expected 'tpe', 'random', 'grid', 'gp' or 'nsga2', got 'tpee'"),
        (("--dataset", "digits", "--id", "new", "--warm-start", "ss"), "unknown sweep 'ss': did you mean 's'?"),
    ],
)
def test_a_search_that_cannot_be_is_one_line(
    sweep: Shell, finished: Store, arguments: tuple[str, ...], said: str
) -> None:
    told = sweep.refused("run", "cas", *arguments)
    assert told.startswith(said)
    assert "\n" not in told


@pytest.mark.parametrize("verb", ["resume", "status", "best", "table"])
def test_an_id_that_does_not_exist_names_the_nearest(sweep: Shell, finished: Store, verb: str) -> None:
    assert sweep.refused(verb, "ss") == "unknown sweep 'ss': did you mean 's'?"


@pytest.mark.parametrize("verb", ["resume", "status", "best"])
@pytest.mark.parametrize("document", ["", "{", "[1]", "{}", '{"trials": 2, "fingerprint": "f", "spec": {"trial": 3}}'])
def test_a_corrupt_sweep_is_refused(sweep: Shell, finished: Store, verb: str, document: str) -> None:
    (sweep.results / "s" / "sweep.json").write_text(document)
    told = sweep.refused(verb, "s")
    assert told.startswith(f"{sweep.results}/s/sweep.json is ")
    assert "\n" not in told


def test_a_sweep_of_another_version_is_not_resumed(sweep: Shell, finished: Store) -> None:
    path = sweep.results / "s" / "sweep.json"
    document = json.loads(path.read_text())
    document["spec"]["alternatives"]["sat"]["trial"]["sampler"]["w9"] = 1
    path.write_text(json.dumps(document))
    assert sweep.refused("resume", "s").startswith("sweep.json: sampler.w9: unknown key")


def test_columns_attacks_and_splits_that_do_not_exist(sweep: Shell, finished: Store) -> None:
    assert sweep.refused("query", "select atack from results") == "unknown column 'atack': did you mean 'attack'?"
    assert sweep.refused("query", "select 1 from trails") == "unknown table 'trails': did you mean 'trials'?"
    assert sweep.refused("query", "selec 1").startswith("SQL: Parser Error: syntax error")
    assert sweep.refused("table", "s", "--union", "linf,blurr") == "unknown attack 'blurr': did you mean 'blur'?"
    assert sweep.refused("table", "s", "--split", "train").startswith("sweep s has no results on split 'train'")


def test_debug_shows_the_traceback(sweep: Shell) -> None:
    sweep.patch.setattr(sys, "argv", ["sweep", "run", "cass", "--debug"])
    with pytest.raises(InputError):
        cli.main()


def test_a_bug_is_a_failure_and_no_traceback(sweep: Shell) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("of the\nprogram")

    sweep.patch.setattr("sweep.status.sweeps", broken)
    answer = sweep("ls")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "failed: KeyError: 'of the\\nprogram' (--debug shows where)\n"


def test_an_interrupt_before_the_sweep_began(sweep: Shell) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    sweep.patch.setattr("sweep.status.sweeps", interrupted)
    assert sweep("ls").code == 130
