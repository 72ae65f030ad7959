"""Every table of the papers on the sweep that the service made: what it has, and what it lacks."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from shells import Shell

from attacks.errors import InputError
from sweep.bits import unpack
from sweep.papers import layouts, shown
from sweep.papers.cells import cells
from sweep.papers.measured import Measured
from sweep.store import Store
from sweep.tables import PRETRAINED

EVERY = [(paper, table) for paper in layouts.papers() for table in layouts.paper(paper).tables]
REFUSED = [(paper, table) for paper, table in EVERY if layouts.paper(paper).tables[table].refused]
CELLS = [one for one in EVERY if one not in REFUSED and layouts.layout(*one).kind in ("cells", "matrix")]
FIGURES = [one for one in EVERY if one not in REFUSED and one not in CELLS]
HELD = {  # table -> what the fixture has of it, as "printed row"
    ("cas-three-phase", "1"): ["pretr_Linf", "E-AT-all", "SAT", "CAS+MDE"],
    ("cas-three-phase", "2"): ["pretr_L2", "E-AT-all", "SAT", "CAS+MDE"],
    ("cas-three-phase", "3"): ["pretr_Linf", "E-AT-all", "SAT", "CAS+MDE"],
    ("cas-three-phase", "4"): ["CAS+MDE, weight terms (AC=accuracy, LO=loss, TR=trade-off)"],
    ("cas-three-phase", "6"): ["pretr_Linf", "E-AT-all", "SAT", "CAS+MDE"],
    ("cas-three-phase", "7"): ["pretr_L2", "E-AT-all", "SAT", "CAS+MDE"],
    ("cas-three-phase", "8"): ["pretr_Linf", "E-AT-all", "SAT", "CAS+MDE"],
    ("cas-three-phase", "9"): ["pretr_Linf"],
    ("cas-three-phase", "11"): ["CAS+MDE, 3+18"],
    ("cas-three-phase", "figure-4"): ["CAS+MDE, 3+18"],
    ("cas-bandit", "1"): ["Original", "E-AT", "SAT"],
    ("cas-bandit", "2"): ["E-AT", "SAT"],
    ("cas-bandit", "3"): ["CAS (ours), alpha=1;beta=8/9", "CAS (ours), alpha=10;beta=8/9"],
    ("cas-bandit", "5"): ["CAS (ours), alpha=1;beta=8/9", "CAS (ours), alpha=10;beta=8/9"],
}


@pytest.fixture(scope="module")
def measured(swept: Store) -> Measured:
    return Measured((swept,))


@pytest.fixture(scope="module")
def accuracies(swept: Store) -> Accuracies:
    return Accuracies(swept.trials().to_pylist(), swept.results().to_pylist())


@dataclass
class Accuracies:
    """On the test split, in percent, a number a seed, from the bits."""

    trials: list[dict[str, Any]]
    results: list[dict[str, Any]]

    def __call__(self, method: str, attack: str, **params: float) -> npt.NDArray[np.float64]:
        ours = [row for row in self.trials if row["method"] == method]
        keys = {row["key"] for row in ours if params.items() <= json.loads(row["params"]).items()}
        rows = [row for row in self.results if (row["split"], row["attack"]) == ("test", attack)]
        mine = [row for row in rows if row["trial"] in keys or method == PRETRAINED == row["method"]]
        return np.array([100 * np.mean(unpack(row["robust_bits"], row["n"])) for row in mine])


@pytest.mark.parametrize(("paper", "table"), CELLS)
def test_a_table_has_what_the_sweep_has_and_invents_nothing(paper: str, table: str, measured: Measured) -> None:
    made = cells(paper, table, measured)
    assert [cell.number for cell in made] == layouts.printed(paper, table) or not made[0].number.table
    filled = list(dict.fromkeys(cell.number.row for cell in made if cell.value is not None))
    assert filled == HELD.get((paper, table), [])
    for cell in made:
        assert not cell.comparable, "the fixture is on digits"
        if cell.value is None:
            assert cell.fill.startswith(f"python -m sweep reproduce {paper} --table {table}") or table == "8"
            assert (cell.std, cell.n, cell.seeds, cell.difference) == (None, None, 0, None)
        elif cell.number.value is not None:
            assert cell.difference == cell.value - cell.number.value
            assert "measured on digits, the paper on " in cell.why_not


def test_the_cells_are_those_of_the_bits(measured: Measured, accuracies: Accuracies) -> None:
    """Table 6, recomputed with numpy: each attack, and the papers' averages of them."""
    made = {(cell.number.method, cell.number.metric): cell for cell in cells("cas-three-phase", "6", measured)}
    attacks = [metric for method, metric in made if method == "SAT" and not metric.startswith("avg")]
    assert len(attacks) == 22
    for printed, ours in {"SAT": "sat", "E-AT-all": "e-at-all", "CAS+MDE": "cas+mde", "pretr_Linf": PRETRAINED}.items():
        each = {name: accuracies(ours, name) for name in attacks}
        assert len(each["clean"]) == (1 if ours == PRETRAINED else 3)
        each["avg_lp"] = np.mean([each[name] for name in ("linf", "l2", "l1")], axis=0)
        others = [name for name in attacks if name not in ("clean", "linf", "l2", "l1")]
        assert len(others) == 18
        each["avg_semantic"] = np.mean([each[name] for name in others], axis=0)
        each["avg_robust"] = (each["avg_lp"] + each["avg_semantic"]) / 2
        for name, values in each.items():
            cell = made[printed, name]
            assert cell.value == pytest.approx(values.mean()), (printed, name)
            assert cell.seeds == len(values)
            assert cell.std == (pytest.approx(values.std(ddof=1)) if len(values) > 1 else None)
            assert cell.n == 24


def test_rows_that_are_cells_of_a_search_are_told_apart(measured: Measured, accuracies: Accuracies) -> None:
    made = {(cell.number.variant, cell.number.metric): cell for cell in cells("cas-bandit", "3", measured)}
    for alpha in (1, 10):
        values = accuracies("alpha", "clean", **{"sampler.alpha": alpha})
        assert len(values) == 3
        assert made[f"alpha={alpha};beta=8/9", "clean"].value == pytest.approx(np.mean(values))


def test_the_averages_of_svhn_are_weighed_its_own_way(measured: Measured, accuracies: Accuracies) -> None:
    """Its `avg_robust` is of corruptions and others; it is on no sweep here, so another data set stands in for it."""
    from sweep.papers.metrics import Reader

    sat = next(model for model in measured.models if model.method == "sat")
    reader = Reader(layouts.paper("cas-bandit"), "SVHN", measured)
    each = {name: accuracies("sat", name) / 100 for name in ("snow", "blur", "fog")}
    corruption = reader.read(sat, "avg_corruption")
    others, average = reader.read(sat, "avg_others"), reader.read(sat, "avg_robust")
    assert corruption is not None
    assert others is not None
    assert average is not None
    assert corruption.mean == pytest.approx(np.mean(list(each.values())))
    assert len(others.rows) == 18 * 3
    assert average.mean == pytest.approx((corruption.mean + others.mean) / 2)


def test_seconds_are_those_of_the_epochs(measured: Measured, swept: Store) -> None:
    cell = next(cell for cell in cells("cas-bandit", "2", measured) if cell.number.method == "SAT")
    keys = [row["key"] for row in swept.trials().to_pylist() if row["method"] == "sat"]
    epochs = swept.epochs().to_pylist()
    each = [sum(row["seconds"] for row in epochs if row["trial"] == key) for key in keys]
    assert cell.value == pytest.approx(np.mean(each))
    assert "seconds are not compared" in cell.why_not


@pytest.mark.parametrize(("paper", "table"), REFUSED)
def test_what_has_no_results_is_refused(paper: str, table: str, measured: Measured) -> None:
    with pytest.raises(InputError, match=f"expected a table of {paper} with results, got {table}: "):
        cells(paper, table, measured)


@pytest.mark.parametrize(("paper", "table"), CELLS)
def test_it_is_laid_out_as_printed(paper: str, table: str, measured: Measured) -> None:
    """Every cell stands once, in the row and column that its number names, in the paper's order."""
    chosen, made = layouts.layout(paper, table), cells(paper, table, measured)
    rows = shown.table(chosen, made)
    texts = [value for row in rows for value in list(row.values())[1:] if value]
    twice = len(made) if chosen.order else 0
    assert len(made) <= len(texts) <= len(made) + twice
    wanted = {shown.text(cell) for cell in made}
    assert set(texts) == wanted


def test_rows_and_columns_by_hand(measured: Measured) -> None:
    def heads(paper: str, table: str) -> tuple[list[str], list[str]]:
        rows = shown.table(layouts.layout(paper, table), cells(paper, table, measured))
        return [next(iter(row.values())) for row in rows], list(rows[0])[1:]

    assert heads("cas-three-phase", "2") == (
        ["pretr_L2", "E-AT", "E-AT+EMA", "E-AT-all", "E-AT-all+EMA", "RAMP", "SAT", "SAT+EMA", "CAS", "CAS+MDE"],
        ["clean", "avg_robust", "avg_lp", "avg_semantic"],
    )
    rows, columns = heads("cas-three-phase", "7")
    assert rows[:6] == ["clean", "avg_robust", "avg_lp", "avg_semantic", "linf", "l2"]
    assert (columns[0], columns[-1], len(rows), len(columns)) == ("pretr_L2", "CAS+MDE", 25, 11)
    rows, columns = heads("cas-bandit", "1")
    assert rows[3:9] == [
        "CIFAR-10, avg_semantic",
        "CIFAR-100, clean",
        "CIFAR-100, avg_robust",
        "CIFAR-100, avg_lp",
        "CIFAR-100, avg_semantic",
        "SVHN, clean",
    ]
    assert columns == ["Original", "E-AT", "SAT", "Order", "AVG", "CAS (ours)"]
    assert heads("vir", "3")[1] == [f"{d}, {m}" for d in ("SVHN", "CIFAR-100") for m in ("clean", "pgd100", "aa")]
    assert heads("adaptive-budget", "4") == (["aa_linf", "aa_l1", "aa_l2", "aa_all"], ["MNIST", "CIFAR-10"])
    columns = heads("adaptive-budget", "5")[1]
    assert columns[:3] == ["MSD", "MSD, AdaptiveBudget norm l1", "MSD, AdaptiveBudget norm l2"]
    assert [name.strip() for name in heads("cas-bandit", "5")[1]].count("alpha=10;beta=8/9") == 2


def test_from_the_command_line(swept: Store, sweep: Shell) -> None:
    where = ["fixture", "--storage", swept.storage.uri, "--paper", "cas-three-phase", "--table"]
    answer = sweep("table", *where, "10")
    assert answer.code == 0
    assert "51.8" not in answer.out.splitlines()[0]
    assert "- | 56.42 *" in answer.out
    assert "56.42 looks like a typo of 51.42" in answer.out
    assert "16 of 16 cells are missing" in answer.out
    assert "to fill: python -m sweep reproduce cas-three-phase --table 10" in answer.out
    told = json.loads(sweep("table", *where, "6", "--format", "json").out)
    read = list(csv.DictReader(io.StringIO(sweep("table", *where, "6", "--format", "csv").out)))
    assert [row["paper"] for row in read] == [str(row["paper"]) for row in told]
    assert [row["paper"] for row in told] == [one.value for one in layouts.printed("cas-three-phase", "6")]
    about = ["row", "dataset", "pretrained", "method", "variant", "metric", "unit", "value", "std", "n", "seeds"]
    assert list(told[0]) == [*about, "paper", "paper_std", "difference", "comparable", "why_not", "doubt", "fill"]
    answer = sweep("table", *where, "6", "--tolerance", "2")
    assert (answer.code, answer.err.splitlines()[-1]) == (
        1,
        "nothing could be compared: no cell is comparable with the paper's",
    )


def test_latex_of_it_compiles(swept: Store, sweep: Shell, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        assert not os.environ.get("CI"), "CI has pdflatex"
        pytest.skip("no pdflatex here")
    where = ["table", "fixture", "--storage", swept.storage.uri, "--format", "latex", "--paper"]
    parts = [sweep(*where, *one).out for one in (("cas-three-phase", "--table", "1"), ("cas-bandit", "--table", "5"))]
    assert r"$\pm$" in parts[0]
    assert r"\texttt{U+" not in "".join(parts)
    page = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + "\n".join(parts)
    (tmp_path / "t.tex").write_text(page + "\n\\end{document}\n", encoding="utf-8")
    call = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    made = subprocess.run(call, cwd=tmp_path, capture_output=True, check=False)
    assert made.returncode == 0, made.stdout.decode("utf-8", "replace")[-2000:]


def test_wrong_use_is_told(swept: Store, sweep: Shell) -> None:
    where = ["table", "fixture", "--storage", swept.storage.uri]
    assert "unknown paper 'cas'" in sweep.refused(*where, "--paper", "cas", "--table", "6")
    assert "unknown table of vir '13'" in sweep.refused(*where, "--paper", "vir", "--table", "13")
    assert "--paper with --table" in sweep.refused(*where, "--paper", "vir")
    assert "an illustration" in sweep.refused(*where, "--paper", "cas-bandit", "--table", "figure-2")
    assert "no space fills it" in sweep.refused("reproduce", "vir", "--table", "8")


def test_the_papers_are_listed(sweep: Shell) -> None:
    rows = json.loads(sweep("papers", "--format", "json").out)
    assert [(row["paper"], row["table"]) for row in rows] == EVERY
    from sweep import spaces

    named = {name for row in rows for name in row["spaces"].split(", ") if name}
    ours = {name for name in spaces.names() if name.startswith("papers/")}
    assert ours <= named
    assert named - ours == {"tradeoff"}
