"""The command line: what it prints and where, exit codes; in this process, but for the last few tests."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
from typing import Any

import pytest
from shells import FAMILY, Shell, verdict

from sweep import cli, spaces
from sweep.cli import run
from sweep.storage import Storage
from sweep.store import Store

VERBS = [str(command.name) for command in cli.app.registered_commands]


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


# the sweep as resolved is what is created


def created(sweep: Shell, *arguments: str) -> dict[str, Any]:
    """sweep.json of `run` with these arguments, which ends before Ray would start."""
    sweep.patch.setattr(run, "drive", lambda *_: None)
    answer = sweep("run", *arguments, "--id", "made")
    assert (answer.code, answer.out) == (0, "made\n"), answer.err
    return Store(Storage(str(sweep.results)), "made").document()


def test_flags_override_the_space_and_set_overrides_flags(sweep: Shell) -> None:
    space = sweep.write("method: sat\ndataset: digits\noptimizer: {lr: 0.3, epochs: 4}\nseed: 5\n")
    flags = "--lr 0.2 --epochs 3 --attacks linf,blur --width 4 --trials 2 --set optimizer.lr=1e-1 --set attack_steps=2"
    document = created(sweep, space, *flags.split())
    trial = document["spec"]["alternatives"]["sat"]["trial"]
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
    trial = created(sweep, "e-at", *words)["spec"]["alternatives"]["e-at"]["trial"]
    assert trial["train_attacks"] == ["linf", "l1"]
    for address, value in flags.values():
        first, _, rest = address.partition(".")
        assert (trial[first][rest] if rest else trial[first]) == value


# what is printed


@pytest.mark.parametrize("verb", ["ls", "status s", "best s", "table s", "methods", "spaces", "attacks"])
def test_rows_come_in_every_format(sweep: Shell, finished: Store, verb: str) -> None:
    as_json = sweep(*verb.split(), "--format", "json")
    assert as_json.code == 0, as_json.err
    rows = json.loads(as_json.out)
    assert rows
    read = list(csv.DictReader(io.StringIO(sweep(*verb.split(), "--format", "csv").out)))
    assert [list(row) for row in read] == [list(row) for row in rows]
    assert sweep(*verb.split(), "--format", "md").out.startswith("| ")
    assert sweep(*verb.split()).out


def test_logs_are_printed_run_by_run(sweep: Shell, finished: Store) -> None:
    finished.folder.write("logs/k1.txt", b"2026-11-20T10:00:00Z attempt 1\n")
    answer = sweep("logs", "s", "1")
    assert (answer.code, answer.out) == (0, "# seed 0, key k1\n2026-11-20T10:00:00Z attempt 1\n")
    assert sweep("logs", "s", "0").out == "# seed 0, key k0\nnothing yet: it has not begun\n"
    assert sweep.refused("logs", "s", "7").startswith("expected the number of a trial of s, got 7: see `")


def test_a_finished_sweep_is_told(sweep: Shell, finished: Store) -> None:
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


def test_a_sweep_without_a_finished_trial_has_no_best(sweep: Shell, finished: Store) -> None:
    document = finished.document()
    Store(finished.storage, "new").create(document)
    assert sweep.refused("best", "new") == "no trial of new is COMPLETE yet: see `python -m sweep status new`"
    answer = sweep("status", "new")
    assert answer.err == "nobody drives it; go on with: python -m sweep resume new\n"


def test_a_damaged_file_is_a_warning(sweep: Shell, finished: Store, caplog: pytest.LogCaptureFixture) -> None:
    (sweep.results / "s/parquet/results/bad.parquet").write_bytes(b"PAR1")
    answer = sweep("query", "select count(*) as n from results", "--format", "json")
    assert (answer.code, json.loads(answer.out)) == (0, [{"n": 24}])
    assert "skipped 1 of 7 files of results of s: parquet/results/bad.parquet" in caplog.text


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


def test_the_summary_ends_with_the_commands_to_go_on(sweep: Shell, finished: Store) -> None:
    run._summary(finished)
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
def test_failed_trials_are_told_by_the_exit_code(sweep: Shell, finished: Store, complete: int) -> None:
    other = Store(finished.storage, "t")
    other.create(finished.document())
    other.write_results("p", "test-live", [verdict(2, "pretrained", "test", attack) for attack in FAMILY])
    states = ["COMPLETE"] * complete + ["FAILED"]
    for number, state in enumerate(states):
        row = {"number": number, "key": f"k{number}", "state": state, "value": 0.5 if state == "COMPLETE" else None}
        other.commit_trial(row | {"method": "sat", "params": {}})
    sweep.patch.setattr("sweep.driver.drive", lambda *_: None)
    answer = sweep("resume", "t")
    assert answer.code == 3, answer.err
    assert answer.err == f"1 of {len(states)} trials FAILED; the query above shows why\n"
    assert ("best: trial 0" in answer.out) == bool(complete)


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (run._Terminated(), 143), (SystemExit(15), 143), (SystemExit(4), 4)]
)
def test_an_interrupted_sweep_says_how_to_go_on(sweep: Shell, finished: Store, error: BaseException, code: int) -> None:
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


def test_an_interrupt_that_was_lost_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal raises inside a destructor Python prints and drops: the sweep's next event raises it once more."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)

    class Dropped:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    try:
        check = run._stop_on_signals()
        check()
        Dropped()
        with pytest.raises(KeyboardInterrupt):
            check()
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
