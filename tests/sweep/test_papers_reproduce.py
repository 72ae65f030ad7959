"""`reproduce`: what it would run for every table, and one that it does run."""

from __future__ import annotations

from pathlib import Path

import pytest
from shells import Shell
from sweeps import Sweeps

from sweep.layers import resolve
from sweep.papers import layouts
from sweep.papers.reproduction import SMOKE, SMOKE_DATASET, Step, steps
from sweep.settings import assignment, nest, read_yaml
from sweep.spaces import read

RUN = [
    (paper, table)
    for paper in layouts.papers()
    for table, chosen in layouts.paper(paper).tables.items()
    if chosen.runs and not chosen.refused
]


def resolved(step: Step, profile: str | None) -> dict[str, object]:
    made = resolve(step.space, nest(dict(map(assignment, step.assignments))), profile)
    return {"dataset": made.trial.dataset, "init": made.trial.init, "model": made.trial.model.name}


@pytest.mark.parametrize(("paper", "table"), RUN)
def test_the_sweeps_behind_a_table_are_sound(paper: str, table: str) -> None:
    """As the paper's, one for each of its parts, from its data set, network and kind of starting model; and as smoke,
    on digits."""
    about, chosen = layouts.paper(paper), layouts.layout(paper, table)
    work = steps(paper, table, None, {}, None)
    assert len({step.sweep_id for step in work}) == len(work)
    smoke = steps(paper, table, SMOKE_DATASET, {}, None)
    if "experiment" in read_yaml(read(work[0].space), work[0].space):
        return
    made = [resolved(step, None) for step in work]
    parts = {number.part for number in layouts.printed(paper, table)}
    if chosen.kind == "cells" and len(about.datasets[next(iter(parts))[0]]) == 1:
        wanted = {
            (about.datasets[dataset][0], about.models[model].rpartition("-")[0], about.starts[start])
            for dataset, model, start in parts
        }
        assert {(one["dataset"], one["model"], str(one["init"]).removeprefix("pretrain:")) for one in made} == wanted
    assert {resolved(step, SMOKE)["dataset"] for step in smoke} == {SMOKE_DATASET}
    assert len(smoke) == (3 if (paper, table) == ("cas-three-phase", "9") else 1)


def test_ids_follow_from_the_work() -> None:
    def ids(*given: str | None, **wish: object) -> list[str]:
        return [step.sweep_id for step in steps("cas-bandit", "1", None, wish, *given)]

    assert ids(None) == ids(None)
    assert ids(None) != ids(None, seeds="0")
    assert ids("mine") == ["mine", "mine-2", "mine-3"]
    assert [(step.space, step.settings) for step in steps("cas-bandit", "1", "svhn", {}, None)] == [
        ("papers/cas-bandit-table-1-svhn", {"dataset": "svhn"})
    ]
    assert [step.settings for step in steps("cas-bandit", "1", "mnist", {}, None)] == [{"dataset": "mnist"}]


def test_options_that_would_do_nothing_are_refused(sweep: Shell) -> None:
    told = sweep.refused("reproduce", "cas-bandit", "--table", "figure-3", "--seeds", "0,1")
    assert told == "expected no --seeds: the table is of a trade-off matrix, which has none"


@pytest.mark.ray
def test_a_table_is_reproduced_and_goes_on(tmp_path: Path) -> None:
    """Table 9 of vir in the smoke profile, its first configuration; then the same command, which trains nothing more;
    then the table of what it left."""
    sweeps = Sweeps(tmp_path)
    command = ["reproduce", "vir", "--table", "9", "--profile", "smoke", "--seeds", "0", "--trials", "1", "-q"]
    code, out, err = sweeps.run(*command, "--id", "mine", "--max-concurrent", "1")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("vir, 9: beta of VIR-AT. ")
    assert lines[1].split() == ["variant", "clean", "pgd100", "cw", "aa"]
    assert " | 84.48 (" in lines[2]
    assert lines[3].split() == [
        "beta=0.007",
        "-",
        "|",
        "84.59",
        "-",
        "|",
        "56.42",
        "-",
        "|",
        "52.18",
        "-",
        "|",
        "48.21",
    ]
    assert "- 8 of 12 cells are missing" in lines
    assert "to fill: python -m sweep reproduce vir --table 9" in lines
    before = sweeps.store("mine").trials().to_pylist()
    code, again, err = sweeps.run(*command, "--id", "mine", "--tolerance", "1")
    assert (code, again) == (1, out), err
    assert "nothing could be compared" in err
    assert sweeps.store("mine").trials().to_pylist() == before
    code, out, err = sweeps.run("reproduce", "vir", "--table", "1", "--profile", "smoke", "--id", "mine")
    assert (code, out) == (2, "")
    assert "mine is a sweep of papers/vir-table-9, not of papers/vir-table-1" in err
