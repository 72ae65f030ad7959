"""The command line: exit codes, streams, one message for each fault and nothing written; in this process where it can."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attacks.errors import InputError
from sweep import cli, spaces
from sweep.bits import pack
from sweep.cli import catalogue, read, run
from sweep.layers import resolve
from sweep.settings import nest
from sweep.storage import Storage
from sweep.store import Store

VERBS = [*run.COMMANDS, *read.COMMANDS, *catalogue.COMMANDS]


@dataclass
class Answer:
    code: int
    out: str
    err: str


@dataclass
class Shell:
    """`sweep ...` in this process, with $SWEEP_STORAGE in a folder that is not there yet."""

    folder: Path
    patch: pytest.MonkeyPatch
    streams: pytest.CaptureFixture[str]

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def __call__(self, *arguments: str) -> Answer:
        self.patch.setattr(sys, "argv", ["sweep", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = self.streams.readouterr()
        return Answer(int(ended.value.code or 0), told.out, told.err)

    def refused(self, *arguments: str) -> str:
        """The message of wrong use: exit code 2, nothing on stdout, no traceback, nothing written."""
        before = sorted(self.folder.rglob("*"))
        answer = self(*arguments)
        assert answer.code == 2, answer
        assert answer.out == ""
        assert "Traceback" not in answer.err
        head, *faults = answer.err.removesuffix("\n").split("\n")
        assert head.startswith("error: ")
        assert not faults or (head.endswith(":") and all(line.startswith("  ") for line in faults))
        assert sorted(self.folder.rglob("*")) == before
        return answer.err.removeprefix("error: ").removesuffix("\n")

    def write(self, text: str) -> str:
        path = self.folder / "space.yaml"
        path.write_text(text)
        return str(path)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("SWEEP_STORAGE", str(tmp_path / "results"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("SWEEP_DATA", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def store(sweep: Shell) -> Store:
    """A finished sweep `s` of two trials, and the pre-trained model's verdicts."""
    made = Store(Storage(str(sweep.results)), "s")
    resolved = resolve("sat", nest({"trials": 2, "dataset": "digits"}))
    document = {"space": "sat", "method": "sat", "dataset": "digits", "fingerprint": "f", "trials": 2, "seed": 0}
    made.create(document | {"created": "2026-11-20T10:00:00+00:00", "spec": resolved.model_dump(mode="json")})
    for number, (key, method) in enumerate([("k0", "sat"), ("k1", "sat"), ("p", "pretrained")]):
        for split in ("val", "test"):
            made.write_results(key, f"{split}-live", [verdict(number, method, split, a) for a in FAMILY])
        if method == "sat":
            params = {"optimizer.lr": 0.1 + number}
            made.write_plan(number, {"key": key, "seed": 0, "method": "sat", "params": params})
            made.commit_trial({"number": number, "key": key, "state": "COMPLETE", "value": 0.5, "params": params})
    return made


FAMILY = {"clean": "clean", "linf": "lp", "l1": "lp", "blur": "semantic"}


def verdict(number: int, method: str, split: str, attack: str) -> dict[str, Any]:
    bits = [i % (2 + number) == 0 or attack == "clean" for i in range(12)]
    row = {"number": None if method == "pretrained" else number, "method": method, "split": split, "attack": attack}
    row |= {"family": FAMILY[attack], "epoch": 1, "weights": "live", "images": split, "protocol": "quick"}
    row |= {"n": 12, "n_robust": sum(bits), "robust_accuracy": sum(bits) / 12, "robust_bits": pack(bits)}
    return row | {"budget_id": "digits", "epsilon": 0.1, "num_steps": 10, "conditional": False}


# help


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_by_an_example(sweep: Shell, verb: str) -> None:
    answer = sweep(verb, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert f"Example: sweep {verb}" in answer.out


@pytest.mark.parametrize("arguments", [("--help",), ()])
def test_help_names_every_verb(sweep: Shell, arguments: tuple[str, ...]) -> None:
    answer = sweep(*arguments)
    assert answer.code == 0
    assert all(f"\n  {verb} " in answer.out for verb in VERBS)
    assert "Example: sweep run cas" in answer.out


# wrong use


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rnu", "No such command 'rnu'. Did you mean 'run'? "),
        ("run", "Missing argument 'space'. "),
        ("run cas --trails 3", "No such option: --trails"),
        ("run cas --trials x", "Invalid value for '--trials': "),
        ("run cas --trials 1.5", "Invalid value for '--trials': "),
        ("run cas --max-concurrent -1", "Invalid value for '--max-concurrent': "),
        ("run cas --cpus-per-worker 0", "Invalid value for '--cpus-per-worker': "),
        ("run cass", "unknown search space 'cass': did you mean 'cas'? "),
        ("run none.yaml", "cannot read the search space none.yaml: No such file or directory"),
        ("run cas --dataset cifar1", "cas: dataset: unknown data set 'cifar1': did you mean 'cifar10'?"),
        ("run cas --attacks linf,jpg", "cas: attacks.1: unknown attack 'jpg': did you mean 'jpeg'?"),
        ("run cas --attacks ,", "cas: attacks: expected at least 1 of them, got []"),
        ("run cas --set method=cass", "cas: method: unknown method 'cass': did you mean 'cas'?"),
        ("run cas --set sampler.w1", "expected --set ADDRESS=VALUE, got 'sampler.w1'"),
        ("run cas --set =3", "expected --set ADDRESS=VALUE, got '=3'"),
        ("run cas --set sampler.w1=[", "expected a YAML value after sampler.w1=, got '['"),
        ("run cas --set optimzer.lr=1", "cas: optimzer: unknown key; did you mean optimizer?"),
        ("run cas --set optimizer.rl=1", "cas: optimizer.rl: unknown key; did you mean optimizer.lr?"),
        ("run cas --set batch_size=3", "cas: batch_size: unknown key; did you mean evaluation.batch_size or optimizer"),
        ("run cas --set sampler.w1=-1", "cas: sampler.w1: expected w1 >= 0, got -1.0"),
        ("run cas --set optimizer.lr=x", "cas: optimizer.lr: expected a number, got 'x'"),
        ("run cas --set search.seed={values: [1, 2]}", "cas: search.seed: all trials of a sweep share it: "),
        ("run cas --trials 0", "cas: trials: expected > 0, got 0"),
        ("run cas --width 0", "cas: model.width: expected > 0, got 0"),
        ("run cas --model resnet", "cas: model.name: unknown model 'resnet': "),
        ("run cas --lr -1", "cas: optimizer.lr: expected lr >= 0, got -1.0"),
        ("run cas --epochs 0", "cas: optimizer.epochs: expected epochs >= 1, got 0"),
        ("run cas --seed -1", "cas: seed: expected >= 0, got -1"),
        ("run cas --init pretrain:l3", "cas: init: expected pretrain:linf, pretrain:l2, pretrain:l1, a file or none, "),
        ("run cas --init no.safetensors", "cas: init: cannot read the model no.safetensors: "),
        ("run cas --id a/b", "expected a sweep id of letters, digits and . _ = + -, got 'a/b'"),
        ("run cas --train-size 10000000", "expected 0 < train_size <= "),
        ("run cas --dataset cifar10 --data-root nowhere", "expected cifar10 in the folder "),
        ("run cas --storage nosuch://x", "cannot open nosuch://x: "),
        ("resume none", "unknown sweep 'none': known: none"),
        ("status none", "unknown sweep 'none': known: none"),
        ("best none", "unknown sweep 'none': known: none"),
        ("table none", "unknown sweep 'none': known: none"),
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
        ("", "method: expected a method, got none: known: cas"),
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


def test_an_id_that_exists_is_refused(sweep: Shell, store: Store) -> None:
    told = sweep.refused("run", "sat", "--dataset", "digits", "--id", "s")
    assert told.startswith(f"sweep 's' exists in {sweep.results}: choose another id, or: python -m sweep resume s")


@pytest.mark.parametrize("verb", ["resume", "status", "best", "table"])
def test_an_id_that_does_not_exist_names_the_nearest(sweep: Shell, store: Store, verb: str) -> None:
    assert sweep.refused(verb, "ss") == "unknown sweep 'ss': did you mean 's'?"


@pytest.mark.parametrize("verb", ["resume", "status", "best"])
@pytest.mark.parametrize("document", ["", "{", "[1]", "{}", '{"trials": 2, "fingerprint": "f", "spec": {"trial": 3}}'])
def test_a_corrupt_sweep_is_refused(sweep: Shell, store: Store, verb: str, document: str) -> None:
    (sweep.results / "s" / "sweep.json").write_text(document)
    told = sweep.refused(verb, "s")
    assert told.startswith(f"{sweep.results}/s/sweep.json is ")
    assert "\n" not in told


def test_a_sweep_of_another_version_is_not_resumed(sweep: Shell, store: Store) -> None:
    path = sweep.results / "s" / "sweep.json"
    document = json.loads(path.read_text())
    document["spec"]["trial"]["sampler"]["w9"] = 1
    path.write_text(json.dumps(document))
    assert sweep.refused("resume", "s").startswith("sweep.json: sampler.w9: unknown key")


def test_columns_attacks_and_splits_that_do_not_exist(sweep: Shell, store: Store) -> None:
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


# the sweep as resolved is what is created


def created(sweep: Shell, *arguments: str) -> dict[str, Any]:
    """sweep.json of `run` with these arguments, which ends before Ray would start."""
    sweep.patch.setattr(run, "_drive", lambda *_: None)
    answer = sweep("run", *arguments, "--id", "made")
    assert (answer.code, answer.out) == (0, "made\n"), answer.err
    return Store(Storage(str(sweep.results)), "made").document()


def test_flags_override_the_space_and_set_overrides_flags(sweep: Shell) -> None:
    space = sweep.write("method: sat\ndataset: digits\noptimizer: {lr: 0.3, epochs: 4}\nseed: 5\n")
    flags = "--lr 0.2 --epochs 3 --attacks linf,blur --width 4 --trials 2 --set optimizer.lr=1e-1 --set attack_steps=2"
    document = created(sweep, space, *flags.split())
    trial = document["spec"]["trial"]
    assert (trial["optimizer"]["lr"], trial["optimizer"]["epochs"]) == (0.1, 3)
    assert (trial["attacks"], trial["attack_steps"]) == (["linf", "blur"], 2)
    assert (trial["model"]["width"], trial["seed"], document["trials"]) == (4, 5, 2)
    assert (document["model"], document["dataset"], document["init"]) == (
        "preact-resnet-18-4",
        "digits",
        "pretrain:linf",
    )


def test_every_flag_reaches_its_address(sweep: Shell) -> None:
    flags = {
        "--dataset": ("dataset", "digits"),
        "--init": ("init", "none"),
        "--train-size": ("train_size", 200),
        "--eval-size": ("eval_size", 50),
        "--batch-size": ("optimizer.batch_size", 16),
        "--attack-steps": ("attack_steps", 2),
        "--eval-steps": ("evaluation.num_steps", 3),
        "--seed": ("seed", 7),
        "--workers": ("workers", 2),
        "--model": ("model.name", "preact-resnet-18"),
    }
    words = [word for flag, (_, value) in flags.items() for word in (flag, str(value))]
    trial = created(sweep, "e-at", *words)["spec"]["trial"]
    assert trial["train_attacks"] == ["linf", "l1"]
    for address, value in flags.values():
        first, _, rest = address.partition(".")
        assert (trial[first][rest] if rest else trial[first]) == value


# what is printed


@pytest.mark.parametrize("verb", ["ls", "status s", "best s", "table s", "methods", "spaces", "attacks"])
def test_rows_come_in_every_format(sweep: Shell, store: Store, verb: str) -> None:
    as_json = sweep(*verb.split(), "--format", "json")
    assert as_json.code == 0, as_json.err
    rows = json.loads(as_json.out)
    assert rows
    read = list(csv.DictReader(io.StringIO(sweep(*verb.split(), "--format", "csv").out)))
    assert [list(row) for row in read] == [list(row) for row in rows]
    assert sweep(*verb.split(), "--format", "md").out.startswith("| ")
    assert sweep(*verb.split()).out


def test_a_finished_sweep_is_told(sweep: Shell, store: Store) -> None:
    (row,) = json.loads(sweep("ls", "--format", "json").out)
    assert (row["sweep"], row["complete"], row["best"]) == ("s", 2, 0.5)
    answer = sweep("status", "s", "--format", "json")
    assert answer.err == "finished\n"
    assert [row["state"] for row in json.loads(answer.out)] == ["COMPLETE", "COMPLETE"]
    assert json.loads(sweep("best", "s", "--format", "json").out)[0]["optimizer.lr"] == 0.1
    table = json.loads(sweep("table", "s", "--union", "linf, l1", "--format", "json").out)
    assert [row["method"] for row in table] == ["pretrained", "sat", "sat"]
    assert table[1]["union(linf,l1)"] == 0.5
    sql = 'select number, "param.optimizer.lr" as lr from trials order by 1'
    assert json.loads(sweep("query", sql, "--format", "json").out) == [
        {"number": 0, "lr": 0.1},
        {"number": 1, "lr": 1.1},
    ]


def test_an_empty_storage_says_how_to_begin(sweep: Shell) -> None:
    answer = sweep("ls")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err == f"no sweep in {sweep.results} yet; start one with: python -m sweep run cas\n"
    assert sweep("ls", "--format", "json").out == "[]\n"
    assert not sweep.results.exists()


def test_a_sweep_without_a_finished_trial_has_no_best(sweep: Shell, store: Store) -> None:
    document = store.document()
    Store(store.storage, "new").create(document)
    assert sweep.refused("best", "new") == "no trial of new is COMPLETE yet: see `python -m sweep status new`"
    answer = sweep("status", "new")
    assert answer.err == "nobody drives it; go on with: python -m sweep resume new\n"


def test_a_damaged_file_is_a_warning_on_stderr(sweep: Shell, store: Store) -> None:
    (sweep.results / "s/parquet/results/bad.parquet").write_bytes(b"PAR1")
    answer = sweep("query", "select count(*) as n from results", "--format", "json")
    assert (answer.code, json.loads(answer.out)) == (0, [{"n": 24}])


def test_methods_have_five_parts_and_a_source(sweep: Shell) -> None:
    rows = json.loads(sweep("methods", "--format", "json").out)
    names = ("name", "sampler", "inner", "objective", "weighting", "averaging", "source")
    assert all(isinstance(row[name], str) and row[name] for row in rows for name in names)
    assert {row["name"] for row in rows} >= {"cas", "sat", "e-at", "e-at-all"}


def test_spaces_name_what_they_search(sweep: Shell) -> None:
    rows = {row["space"]: row for row in json.loads(sweep("spaces", "--format", "json").out)}
    assert list(rows) == spaces.names()
    assert "sampler.w1" in rows["cas"]["searches"]
    assert rows["e-at"]["method"] == "e-at"


# the end of a run


def test_the_summary_ends_with_the_commands_to_go_on(sweep: Shell, store: Store) -> None:
    run._summary(store)
    told = sweep.streams.readouterr()
    assert told.err == ""
    assert told.out.startswith("\nbest: trial 0, value 0.5000 on the validation split\n")
    assert "pretrained" in told.out
    *_, resume, best, table, query = told.out.splitlines()
    assert [line.split()[3] for line in (resume, best, table, query)] == ["resume", "best", "table", "query"]
    assert sweep(*best.split()[3:]).code == 0
    assert sweep(*table.split()[3:]).code == 0
    assert sweep("query", query.split('"')[1]).code == 0


@pytest.mark.parametrize("complete", [0, 1])
def test_failed_trials_are_told_by_the_exit_code(sweep: Shell, store: Store, complete: int) -> None:
    other = Store(store.storage, "t")
    other.create(store.document())
    other.write_results("p", "test-live", [verdict(2, "pretrained", "test", attack) for attack in FAMILY])
    states = ["COMPLETE"] * complete + ["FAILED"]
    for number, state in enumerate(states):
        row = {"number": number, "key": f"k{number}", "state": state, "value": 0.5 if state == "COMPLETE" else None}
        other.commit_trial(row | {"params": {}})
    sweep.patch.setattr("sweep.driver.drive", lambda *_: None)
    answer = sweep("resume", "t")
    assert answer.code == 3, answer.err
    assert answer.err == f"1 of {len(states)} trials FAILED; the query above shows why\n"
    assert ("best: trial 0" in answer.out) == bool(complete)


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (run._Terminated(), 143), (SystemExit(15), 143), (SystemExit(4), 4)]
)
def test_an_interrupted_sweep_says_how_to_go_on(sweep: Shell, store: Store, error: BaseException, code: int) -> None:
    import signal

    def ended(*_: Any) -> None:
        raise error

    sweep.patch.setattr("sweep.driver.drive", ended)
    before = signal.getsignal(signal.SIGTERM)
    try:
        answer = sweep("resume", "s")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert answer.code == code
    assert answer.err == ("" if code == 4 else "interrupted; go on with: python -m sweep resume s\n")


# real processes


def test_help_of_a_process_is_quick_and_loads_neither_ray_nor_torch() -> None:
    code = "import sys; sys.argv = ['sweep', '--help']; import sweep.cli\ntry: sweep.cli.main()\n"
    code += "finally: print(*sys.modules, file=sys.stderr)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Commands:" in told.stdout
    assert not {"ray", "torch", "optuna", "pyarrow", "duckdb", "pydantic"} & set(told.stderr.split())


def test_a_process_prints_spaces() -> None:
    told = subprocess.run([sys.executable, "-m", "sweep", "spaces"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[0].split() == ["space", "method", "searches"]


def test_no_colour_where_none_is_wanted() -> None:
    """On a terminal, NO_COLOR leaves no colour codes; without a terminal there is no code at all."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"}
    subprocess.run([sys.executable, "-m", "sweep", "spaces"], stdout=theirs, env=environment, check=True)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "sampler.w1" in shown
    assert "\x1b[3" not in shown
    assert "\x1b[9" not in shown


def test_a_reader_that_leaves_is_no_failure() -> None:
    command = f"{sys.executable} -m sweep attacks --format json | head -c 10"
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("[")
    assert told.stderr == ""
