"""The benchmark's figures, as far as they can be told without trusting a clock."""

from __future__ import annotations

import torch

from trainers.speed import AGAIN, bench_attacks


def test_a_row_an_attack_with_paired_ratios() -> None:
    threads = torch.get_num_threads()
    rows = bench_attacks(["fog", "l1"], width=2, batch_size=2, rounds=3, steps=2)
    assert torch.get_num_threads() == threads
    assert [row["attack"] for row in rows] == [AGAIN, "fog", "l1"]
    assert [row["num_steps"] for row in rows] == [1, 40, 100]
    for row in rows:
        assert 0 < row["ratio_q1"] <= row["ratio"] <= row["ratio_q3"]
        assert row["images_per_s"] > 0
    assert [row["kernels"] for row in rows[:1]] == [0]
    assert all(0 < row["kernels"] <= 60 and 0 < row["setup"] <= 350 for row in rows[1:])
