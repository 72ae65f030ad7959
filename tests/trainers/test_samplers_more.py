"""order, every and cas-bandit: what each promises; the numbered equations of cas-bandit on examples worked by hand."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import groupby, pairwise
from time import thread_time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_toys import batch_of, seen

from attacks.errors import InputError
from trainers.parts import Sampler, samplers
from trainers.samplers.cas_bandit import CasBandit
from trainers.samplers.every import Every
from trainers.samplers.order import Order

RNG = np.random.default_rng(0)
BATCH = batch_of([0, 1])
LN2 = math.log(2)


def order(weights: dict[str, float], **settings: Any) -> Order:
    made = Order(**settings)
    made.start(list(weights), weights, None)
    return made


def cycle(sampler: Order, n: int) -> str:
    """The next n choices, as one word."""
    word = ""
    for _ in range(n):
        (name,) = sampler.choose(BATCH, RNG)
        sampler.observe(BATCH, [seen(name, [1.0, 1.0], [0, 1])])
        word += name
    return word


class TestOrder:
    def test_even_takes_the_attack_that_is_furthest_behind_its_share(self) -> None:
        """Weights 3, 1, of 4. Behind before each batch t: (t + 1) * w / 4 - turns:
        (.75, .25) a; (.5, .5) a, listed first; (.25, .75) b; (1, 0) a; then all turns are (3, 1), as at the start."""
        sampler = order({"a": 3.0, "b": 1.0})
        assert sampler.state_dict()["turns"].tolist() == [0, 0]
        assert cycle(sampler, 4) == "aaba"
        assert sampler.state_dict()["turns"].tolist() == [3, 1]
        assert cycle(sampler, 8) == "aabaaaba"

    def test_blocks_takes_all_turns_of_one_attack_in_a_row(self) -> None:
        assert cycle(order({"a": 2.0, "b": 3.0, "c": 1.0}, spacing="blocks"), 12) == "aabbbcaabbbc"

    def test_even_spreads_the_papers_21_attacks(self) -> None:
        """Three of weight 6, eighteen of 1: a cycle of 36, in which a heavy one comes at least every 9 batches."""
        weights = {name: 6.0 if name in "abc" else 1.0 for name in "abcdefghijklmnopqrstu"}
        word = cycle(order(weights), 72)
        assert word[:36] == word[36:]
        assert Counter(word[:36]) == {name: int(weight) for name, weight in weights.items()}
        for name in "abc":
            places = [i for i, other in enumerate(word) if other == name]
            assert max(b - a for a, b in pairwise(places)) <= 9

    @pytest.mark.parametrize("spacing", ["even", "blocks"])
    def test_weights_that_are_not_whole_need_a_longer_cycle(self, spacing: str) -> None:
        """3 attacks of 4/3 and 4 of 1, as "balanced" makes of 7: 24 batches are the whole cycle."""
        weights = {name: 4 / 3 if name in "abc" else 1.0 for name in "abcdefg"}
        word = cycle(order(weights, spacing=spacing), 72)
        assert word[:24] == word[24:48] == word[48:]
        assert Counter(word[:24]) == {name: 4 if name in "abc" else 3 for name in weights}

    @pytest.mark.parametrize("spacing", ["even", "blocks"])
    def test_an_attack_of_importance_0_has_no_turn(self, spacing: str) -> None:
        weights = {"a": 0.0, "b": 1.0, "c": 0.0, "d": 2.0, "e": 0.0}
        assert Counter(cycle(order(weights, spacing=spacing), 30)) == {"b": 10, "d": 20}

    def test_its_probabilities_name_the_next_attack_and_on_average_the_shares(self) -> None:
        sampler = order({"a": 3.0, "b": 1.0})
        assert sampler.probabilities(None) == {"a": 0.75, "b": 0.25}
        for name in "aaba":
            assert sampler.probabilities(BATCH) == {"a": float(name == "a"), "b": float(name == "b")}
            assert cycle(sampler, 1) == name

    def test_the_state_is_the_place_in_the_cycle(self) -> None:
        one, other = order({"a": 3.0, "b": 2.0}), order({"a": 3.0, "b": 2.0})
        cycle(one, 3)
        other.load_state_dict(one.state_dict())
        assert cycle(other, 7) == cycle(one, 7)

    def test_choosing_again_chooses_the_same(self) -> None:
        sampler = order({"a": 1.0, "b": 1.0})
        assert sampler.choose(BATCH, RNG) == sampler.choose(BATCH, RNG) == ["a"]

    def test_another_spacing_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"expected spacing even or blocks, got 'random'"):
            Order(spacing="random")


class TestEvery:
    def test_all_attacks_in_their_order_each_time(self) -> None:
        sampler = Every()
        sampler.start(["c", "a", "b"], {"a": 6.0, "b": 1.0, "c": 1.0}, None)
        for _ in range(2):
            assert sampler.choose(BATCH, RNG) == ["c", "a", "b"]
        assert sampler.probabilities(BATCH) == dict.fromkeys("cab", 1 / 3)

    def test_but_those_of_importance_0(self) -> None:
        sampler = Every()
        sampler.start(["a", "b", "c"], {"a": 1.0, "b": 0.0, "c": 1.0}, None)
        assert sampler.choose(BATCH, RNG) == ["a", "c"]
        assert sampler.probabilities(None) == {"a": 0.5, "b": 0.0, "c": 0.5}

    def test_what_it_chose_is_the_callers_to_change(self) -> None:
        sampler = Every()
        sampler.start(["a", "b"], {"a": 1.0, "b": 1.0}, None)
        sampler.choose(BATCH, RNG).clear()
        assert sampler.choose(BATCH, RNG) == ["a", "b"]

    def test_it_has_nothing_to_remember(self) -> None:
        assert Every().state_dict() == {}
        assert Every().record() == {}


def bandit(*told: tuple[str, float], weights: tuple[float, ...] = (1.0, 1.0, 1.0), **settings: Any) -> CasBandit:
    """Over a, b, c..., after batches on which (attack, loss) was seen. Each loss is a batch of two images' mean."""
    names = "abcdefgh"[: len(weights)]
    made = CasBandit(**{"normalised": False} | settings)
    made.start(list(names), dict(zip(names, weights, strict=True)), None)
    tell(made, *told)
    return made


def tell(sampler: Sampler, *told: tuple[str, float]) -> None:
    for name, loss in told:
        sampler.observe(BATCH, [seen(name, [0.5 * loss, 1.5 * loss], [0, 1])])


def rewards(sampler: CasBandit) -> list[float]:
    return list(sampler.record()["rewards"].values())


def chances(sampler: CasBandit) -> list[float]:
    return list(sampler.probabilities(BATCH).values())


SELF = {"tradeoff_reward": False}
OTHERS = {"self_reward": False}


class TestCasBandit:
    def test_eq_5_the_reward_is_the_sum_of_both_parts(self) -> None:
        told = (("a", 4.0), ("b", 1.0), ("a", 2.0), ("b", 2.0))
        both, mine, others = (rewards(bandit(*told, **more)) for more in ({}, SELF, OTHERS))
        assert mine == pytest.approx([LN2 / 2, -LN2 / 2, 0.0])
        assert others == pytest.approx([-LN2, LN2, 0.0])
        assert both == pytest.approx([-LN2 / 2, LN2 / 2, 0.0])

    def test_eq_6_minus_the_slope_of_the_log_loss_times_the_weight(self) -> None:
        """a at batches 0, 1, 3 with log L 0, -2, -1: means 4/3 and -1; the slope is
        (-4/3 * 0 + -1/3 * -2 + 5/3 * -1) / (16/9 + 1/9 + 25/9) = -1 / (42/9) = -3/14, the reward 2 * 3/14."""
        told = (("a", 1.0), ("a", math.exp(-2)), ("b", 1.0), ("a", math.exp(-1)))
        assert rewards(bandit(*told, weights=(2.0, 1.0), **SELF)) == pytest.approx([3 / 7, 0.0])

    def test_normalised_rewards_weigh_by_shares(self) -> None:
        """Weights 2 and 1 are 2/3 and 1/3: a third of the rewards; how much the weights are in all does not matter."""
        told = (("a", 1.0), ("a", math.exp(-2)), ("b", 1.0), ("a", math.exp(-1)))
        shares = bandit(*told, weights=(2.0, 1.0), normalised=True, **SELF)
        assert rewards(shares) == pytest.approx([1 / 7, 0.0])
        scaled = bandit(*told, weights=(20.0, 10.0), normalised=True, **SELF)
        assert scaled.probabilities(None) == pytest.approx(shares.probabilities(None))

    def test_with_weights_as_printed_one_attack_is_drawn_for_ever(self) -> None:
        """The paper's 21 attacks of weights 6 and 1, losses that only their noise of 10 % moves."""
        longest = {}
        for normalised in (False, True):
            rng = np.random.default_rng(3)
            sampler = CasBandit(normalised=normalised)
            names = [str(j) for j in range(21)]
            sampler.start(names, {name: 6.0 if j < 3 else 1.0 for j, name in enumerate(names)}, None)
            drawn = []
            for _ in range(600):
                drawn += sampler.choose(BATCH, rng)
                tell(sampler, (drawn[-1], math.exp(0.1 * rng.normal())))
            longest[normalised] = max(len(list(run)) for _, run in groupby(drawn))
        assert longest[False] > 100
        assert longest[True] < 10

    def test_eq_6_ordinal_counts_the_attacks_own_batches(self) -> None:
        """The same losses at 0, 1, 2: slope (-1 * 0 + 0 * -2 + 1 * -1) / 2 = -1/2."""
        told = (("a", 1.0), ("a", math.exp(-2)), ("b", 1.0), ("a", math.exp(-1)))
        sampler = bandit(*told, weights=(2.0, 1.0), abscissa="ordinal", **SELF)
        assert rewards(sampler) == pytest.approx([1.0, 0.0])

    def test_eq_6_the_window_holds_the_last_batches_of_the_attack(self) -> None:
        """Window 2: of log L 0, -2, -1 at 0, 1, 3 the last two are left: slope 1/2."""
        told = (("a", 1.0), ("a", math.exp(-2)), ("b", 1.0), ("a", math.exp(-1)))
        assert rewards(bandit(*told, weights=(1.0, 1.0), window=2, **SELF)) == pytest.approx([-0.5, 0.0])

    def test_eq_6_one_loss_has_no_slope(self) -> None:
        assert rewards(bandit(**SELF)) == rewards(bandit(("a", 3.0), ("c", 2.0), **SELF)) == [0.0, 0.0, 0.0]

    def test_eq_7_who_trained_in_between_shares_what_the_loss_fell(self) -> None:
        """a 8; b, b, c; a 2: ln 4 for weight 3, two thirds of it b's, one third c's. b twice in a row: from it nothing;
        c was met once: nothing."""
        sampler = bandit(("a", 8.0), ("b", 5.0), ("b", 1.0), ("c", 1.0), ("a", 2.0), weights=(3.0, 1.0, 7.0), **OTHERS)
        assert rewards(sampler) == pytest.approx([0.0, 3 * 2 / 3 * 2 * LN2, 3 * 1 / 3 * 2 * LN2])
        # c again, 1 -> 2: between were one a, so a gets 7 * ln(1/2); what a's own fall gave b and c stays
        tell(sampler, ("c", 2.0))
        assert rewards(sampler) == pytest.approx([-7 * LN2, 4 * LN2, 2 * LN2])
        # a again, 2 -> 1: only c since; the older interval is forgotten
        tell(sampler, ("a", 1.0))
        assert rewards(sampler) == pytest.approx([-7 * LN2, 0.0, 3 * LN2])
        # a again at once: nobody in between, so nothing from it
        tell(sampler, ("a", 0.1))
        assert rewards(sampler) == pytest.approx([-7 * LN2, 0.0, 0.0])

    def test_eq_9_and_10_the_start_is_as_the_weights(self) -> None:
        """No reward: exp(0) = 1 for all, and the same bonus sqrt(2 ln 3 / 1)."""
        assert chances(bandit(weights=(6.0, 1.0, 1.0))) == pytest.approx([0.75, 0.125, 0.125])

    def test_eq_9_the_bonus_falls_with_the_picks(self) -> None:
        """N = 2, 1, 1, of 4: 1 + sqrt(2 ln 4 / 2) = 2.177410 and 1 + sqrt(2 ln 4) = 2.665109, in all 7.507628."""
        assert chances(bandit(("a", 1.0))) == pytest.approx([0.290027, 0.354987, 0.354987], abs=1e-6)

    def test_eq_9_and_10_with_rewards(self) -> None:
        """a: 4 -> 1 in one batch: self = w * slope = 2 * 2 ln 2; alpha = 1/4: exp(ln 2) = 2. N = 3, 1, of 4:
        sqrt(2 ln 4 / 3) = 0.961351 and sqrt(2 ln 4) = 1.665109. Scores 2.961351 * 2 and 2.665109 * 1."""
        sampler = bandit(("a", 4.0), ("a", 1.0), weights=(2.0, 1.0), alpha=0.25)
        assert chances(sampler) == pytest.approx([5.922702 / 8.587811, 2.665109 / 8.587811], abs=1e-6)

    def test_algorithm_1_one_batch_moves_the_state(self) -> None:
        """Lines 10 and 14: N, the loss buffer and the cross-type records."""
        sampler = bandit(("b", 2.0), ("a", 1.0), window=2)
        before = {
            "batches": 2.0,
            "picks": [2.0, 2.0, 1.0],
            "log_losses": [[0.0, 0.0], [0.0, LN2], [0.0, 0.0]],
            "when": [[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]],
            "since": [[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]],
            "between": [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
        }
        assert {name: t.tolist() for name, t in sampler.state_dict().items()} == before
        tell(sampler, ("b", 4.0))
        after = {
            "batches": 3.0,
            "picks": [2.0, 3.0, 1.0],
            "log_losses": [[0.0, 0.0], [LN2, 2 * LN2], [0.0, 0.0]],
            "when": [[0.0, 1.0], [0.0, 2.0], [0.0, 0.0]],
            "since": [[0.0, 0.0, 1.0], [1.0, 0.0, 2.0], [0.0, 0.0, 0.0]],
            "between": [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
        }
        assert {name: t.tolist() for name, t in sampler.state_dict().items()} == after

    def test_attacks_of_one_batch_are_not_between_each_other(self) -> None:
        sampler = bandit()
        for loss in (4.0, 2.0):
            sampler.observe(BATCH, [seen("a", [loss] * 2, [0, 1]), seen("b", [1.0] * 2, [0, 1])])
        assert rewards(sampler) == pytest.approx([LN2, 0.0, 0.0])
        assert not sampler.state_dict()["between"].any()

    def test_the_switches_of_table_4(self) -> None:
        told = (("a", 4.0), ("b", 1.0), ("a", 2.0), ("c", 3.0))
        w = (2.0, 1.0, 1.0)
        off = {"self_reward": False, "tradeoff_reward": False}
        assert chances(bandit(*told, weights=w, ucb=False, **off)) == pytest.approx([0.5, 0.25, 0.25])  # SAT
        assert rewards(bandit(*told, weights=w, **off)) == [0.0, 0.0, 0.0]
        # without UCB the scores are exp(alpha R) alone: R = 2 * ln 2 / 2, 2 * ln 2, 0 and w = 2, 1, 1
        without = bandit(*told, weights=w, alpha=1.0, ucb=False)
        assert chances(without) == pytest.approx([4 / 9, 4 / 9, 1 / 9])

    def test_no_loss_and_no_alpha_is_too_much(self) -> None:
        sampler = bandit(("a", 1e30), ("b", 0.0), ("a", 0.0), ("b", 1e30), alpha=1e9)
        assert sampler.state_dict()["log_losses"][0, -1] == pytest.approx(math.log(1e-8))
        assert all(math.isfinite(r) for r in rewards(sampler))
        scores = (math.exp(20) + (2 * math.log(7) / 3) ** 0.5, (2 * math.log(7)) ** 0.5 + 1)
        assert chances(sampler)[1] / chances(sampler)[2] == pytest.approx(scores[0] / scores[1])
        hopeless = bandit(("a", 1e-8), ("b", 1e-8), ("a", 1e30), ("b", 1e30), weights=(1.0, 1.0), alpha=1e9, ucb=False)
        assert sum(chances(hopeless)) == pytest.approx(1)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from("abcd"), st.floats(1e-3, 1e3)), max_size=60),
        st.integers(2, 6),
        st.sampled_from(["global", "ordinal"]),
    )
    def test_it_agrees_with_whole_histories(self, told: list[tuple[str, float]], window: int, abscissa: str) -> None:
        weights = (6.0, 1.0, 0.0, 2.5)
        sampler = bandit(*told, weights=weights, window=window, abscissa=abscissa)
        of = dict(zip("abcd", weights, strict=True))
        expected = [from_history(v, told, of, window, abscissa) for v in "abcd"]
        assert rewards(sampler) == pytest.approx(expected, rel=1e-5, abs=1e-5)  # cross entropies are float32

    def test_the_state_has_fixed_shapes_and_is_not_shared(self) -> None:
        one, other = bandit(), bandit()
        shapes = {name: t.shape for name, t in one.state_dict().items()}
        tell(one, *[("abc"[i % 3], 1.0 + i) for i in range(40)])
        other.load_state_dict(one.state_dict())
        assert {name: t.shape for name, t in other.state_dict().items()} == shapes
        assert rewards(other) == rewards(one)
        before = rewards(one)
        tell(other, ("a", 9.0), ("b", 0.1))
        assert rewards(one) == before
        tell(one, ("a", 9.0), ("b", 0.1))
        assert chances(other) == chances(one)

    def test_observe_looks_at_nothing_that_lies_on_a_device(self) -> None:
        far = replace(BATCH, x=torch.zeros(2, 3, 8, 8, device="meta"), y=torch.zeros(2, device="meta"))
        sampler = bandit()
        for _ in range(3):
            for name in sampler.choose(far, np.random.default_rng(0)):
                sampler.observe(far, [seen(name, [1.0, 2.0], [0, 1])])
        assert all(t.device.type == "cpu" for t in sampler.state_dict().values())

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"alpha": -1.0}, "expected alpha >= 0, got -1.0"),
            ({"alpha": math.nan}, "expected alpha >= 0"),
            ({"alpha": math.inf}, "expected alpha >= 0"),
            ({"window": 1}, "expected a whole window >= 2, got 1"),
            ({"window": 2.5}, "expected a whole window >= 2, got 2.5"),
            ({"abscissa": "time"}, "expected abscissa global or ordinal, got 'time'"),
            ({"ucb": "off"}, "expected ucb true or false, got 'off'"),
            ({"self_reward": 0.5}, "expected self_reward true or false"),
            ({"tradeoff_reward": 1}, "expected tradeoff_reward true or false"),
        ],
    )
    def test_hyper_parameters_out_of_range_are_refused(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            CasBandit(**wrong)


def from_history(v: str, told: list[tuple[str, float]], weights: dict[str, float], window: int, abscissa: str) -> float:
    """Eq. 5-7 from every batch that there was."""
    at = {k: [t for t, (name, _) in enumerate(told) if name == k] for k in weights}
    total = 0.0
    last = at[v][-window:]
    if len(last) >= 2:
        x = last if abscissa == "global" else range(len(last))
        total -= weights[v] * float(np.polyfit(x, [math.log(told[t][1]) for t in last], 1)[0])
    for k in weights:
        if k != v and len(at[k]) >= 2:
            before, now = at[k][-2:]
            trained = [name for name, _ in told[before + 1 : now]]
            share = trained.count(v) / max(1, len(trained))
            total += weights[k] * share * math.log(told[before][1] / told[now][1])
    return total


@pytest.mark.parametrize("name", ["order", "every", "cas-bandit", "sat", "e-at"])
def test_a_batch_costs_at_most_a_millisecond_at_21_attacks(name: str) -> None:
    """Processor time of this thread, the best of five rounds: what else runs on the machine does not count."""
    names, rng = [f"a{j}" for j in range(21)], np.random.default_rng(0)
    sampler = samplers.get(name)()
    sampler.start(names, dict.fromkeys(names, 1.0), None)
    outcome = {attack: seen(attack, rng.random(128).tolist(), [1] * 128) for attack in names}

    def round_of(batches: int) -> float:
        start = thread_time()
        for _ in range(batches):
            sampler.probabilities(BATCH)
            sampler.observe(BATCH, [outcome[a] for a in sampler.choose(BATCH, rng)])
        return (thread_time() - start) / batches

    assert min(round_of(20) for _ in range(5)) < 1e-3
