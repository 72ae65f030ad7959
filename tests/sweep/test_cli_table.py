"""`sweep table`, of one and of several sweeps, in every format."""

from __future__ import annotations

import json
import shutil

import pytest
from shells import Shell

from sweep.store import Store


def again(sweep: Shell, store: Store, sweep_id: str) -> None:
    """The same sweep under another name."""
    shutil.copytree(sweep.results / store.sweep_id, sweep.results / sweep_id)


def test_two_sweeps(sweep: Shell, finished: Store) -> None:
    again(sweep, finished, "t")
    rows = json.loads(sweep("table", "s", "t", "--union", "linf,l1", "--union", "linf,blur", "--format", "json").out)
    assert [row["sweep"] for row in rows] == ["s", "t", *["s", "t"] * 2][: len(rows)]
    assert {"union(linf,l1)", "union(linf,blur)", "union of all", "worst attack", "best_in", "tied_in"} <= set(rows[0])
    assert rows[0]["best_in"] == rows[1]["best_in"]


def test_intervals_and_spreads(sweep: Shell, finished: Store) -> None:
    (row, *_) = json.loads(sweep("table", "s", "--intervals", "--std", "--format", "json").out)
    assert row["worst attack_low"] <= row["worst attack"] <= row["worst attack_high"]
    assert row["linf_std"] is None  # of one seed


@pytest.mark.parametrize("verb", [("table", "s"), ("ls",), ("status", "s"), ("best", "s"), ("query", "select 1 as a")])
def test_every_verb_of_rows_has_the_formats_for_papers_and_pages(
    sweep: Shell, finished: Store, verb: tuple[str, ...]
) -> None:
    assert "\\toprule" in sweep(*verb, "--format", "latex").out
    assert sweep(*verb, "--format", "html").out.startswith("<!doctype html>")


def test_a_caption_says_of_what_the_table_is(sweep: Shell, finished: Store) -> None:
    assert (
        "<caption>Accuracies on the val split (%): s</caption>"
        in sweep("table", "s", "--split", "val", "--format", "html").out
    )


def test_robustbench(sweep: Shell, finished: Store) -> None:
    found = json.loads(sweep("table", "s", "--format", "robustbench").out)
    assert [one["name"] for one in found] == ["pretrained", "sat (optimizer.lr=0.1)", "sat (optimizer.lr=1.1)"]
    assert sweep.refused("ls", "--format", "robustbench").startswith("unknown format 'robustbench'")


def test_what_is_wrong_is_told(sweep: Shell, finished: Store) -> None:
    assert sweep.refused("table", "s", "s") == "expected each sweep once, got s, s"
    assert sweep.refused("table", "s", "u").startswith("unknown sweep 'u'")
    assert sweep.refused("table", "s", "--average", "lp") == "unknown average 'lp': known: lp-semantic, svhn"
    assert sweep.refused("table", "s", "--reference", "u").startswith("unknown sweep 'u'")
    assert sweep.refused("table", "s", "--reference", "s") == (
        "expected a reference with models trained on one attack each, s has none"
    )
    assert sweep.refused("table", "s", "--union", "linf,blurr") == "unknown attack 'blurr': did you mean 'blur'?"
