"""Samplers: the contract of all that are registered, and what each of them promises."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_toys import batch_of, seen

from attacks.errors import InputError
from trainers.parts import Sampler, samplers
from trainers.samplers.cas import Cas
from trainers.samplers.e_at import EAt
from trainers.samplers.sat import Sat, draw
from trainers.tradeoff import Prior

ABC = ("a", "b", "c")
WEIGHTS = {"a": 2.0, "b": 1.0, "c": 1.0}
EVEN = dict.fromkeys(ABC, 1.0)
PRIOR = Prior(ABC, torch.tensor([0.2, 0.5, 0.9]), torch.full((6, 3), 2.0), torch.eye(3) / 10, 1, 0.0)


def started(name: str, weights: dict[str, float] = WEIGHTS) -> Sampler:
    sampler = samplers.get(name)()
    sampler.start(ABC, weights, PRIOR if sampler.needs_prior else None)
    return sampler


def lived(sampler: Sampler, batches: int = 12, seed: int = 0) -> list[list[str]]:
    """A life of a few batches with made-up outcomes; what was chosen."""
    rng = np.random.default_rng(seed)
    chosen = []
    for step in range(batches):
        batch = batch_of([step % 6, (step + 1) % 6], warm_up=step < batches // 2)
        names = sampler.choose(batch, rng)
        sampler.observe(batch, [seen(n, rng.random(2).tolist(), rng.integers(0, 2, 2).tolist()) for n in names])
        chosen.append(names)
    return chosen


def test_the_papers_samplers_are_registered() -> None:
    assert {"cas", "sat", "e-at"} <= set(samplers.names())


@pytest.mark.parametrize("name", samplers.names())
class TestEverySampler:
    def test_probabilities_sum_to_1_over_the_attacks_in_any_phase(self, name: str) -> None:
        sampler = started(name)
        for _ in range(2):
            for batch in (None, batch_of([0, 3], warm_up=True), batch_of([1], warm_up=False)):
                p = sampler.probabilities(batch)
                assert tuple(p) == ABC
                assert sum(p.values()) == pytest.approx(1, abs=1e-12)
                assert all(0 <= value <= 1 for value in p.values())
            lived(sampler)

    def test_the_same_rng_chooses_the_same(self, name: str) -> None:
        chosen = lived(started(name))
        assert lived(started(name)) == chosen
        assert {attack for names in chosen for attack in names} <= set(ABC)

    def test_only_the_rng_given_is_drawn_from(self, name: str) -> None:
        sampler = started(name)
        torch_state, numpy_state = torch.get_rng_state(), repr(np.random.get_state())
        lived(sampler)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert repr(np.random.get_state()) == numpy_state

    def test_state_makes_the_round_trip(self, name: str) -> None:
        one, other = started(name), started(name)
        lived(one)
        saved = {key: value.clone() for key, value in one.state_dict().items()}
        other.load_state_dict(saved)
        assert lived(other, seed=1) == lived(one, seed=1)
        assert other.probabilities(None) == one.probabilities(None)

    def test_what_was_loaded_is_not_shared(self, name: str) -> None:
        one, other = started(name), started(name)
        lived(one)
        other.load_state_dict(one.state_dict())
        before = dict(one.probabilities(None))
        lived(other, seed=2)
        assert one.probabilities(None) == before

    def test_the_names_of_its_state_do_not_change(self, name: str) -> None:
        sampler = started(name)
        names = list(sampler.state_dict())
        lived(sampler)
        assert list(sampler.state_dict()) == names

    def test_an_attack_of_importance_0_is_never_drawn(self, name: str) -> None:
        sampler = started(name, {"a": 1.0, "b": 0.0, "c": 1.0})
        chosen = lived(sampler, 60)
        assert not any("b" in names for names in chosen)
        assert all(math.isfinite(p) for p in sampler.probabilities(None).values())


def test_draw_follows_the_probabilities() -> None:
    rng, n = np.random.default_rng(0), 4000
    counts = Counter(draw({"a": 0.5, "b": 0.3, "c": 0.2}, rng)[0] for _ in range(n))
    for name, p in (("a", 0.5), ("b", 0.3), ("c", 0.2)):
        assert abs(counts[name] - n * p) < 4 * (n * p * (1 - p)) ** 0.5


def test_sat_is_fixed_and_proportional_to_the_weights() -> None:
    sampler = started("sat")
    assert sampler.probabilities(None) == {"a": 0.5, "b": 0.25, "c": 0.25}
    lived(sampler)
    assert sampler.probabilities(batch_of([0])) == {"a": 0.5, "b": 0.25, "c": 0.25}
    assert Sat().state_dict() == {}


class TestEAt:
    @staticmethod
    def told(*outcomes: tuple[str, list[int]], forgetting: float = 1.0, weights: dict[str, float] = EVEN) -> EAt:
        sampler = EAt(forgetting=forgetting)
        sampler.start(ABC, weights, None)
        for attack, robust in outcomes:
            sampler.observe(batch_of(list(range(len(robust)))), [seen(attack, [1.0] * len(robust), robust)])
        return sampler

    def test_even_until_every_attack_was_seen(self) -> None:
        sampler = self.told(("a", [1, 1]), ("b", [0, 0]), ("a", [0, 0]))
        assert list(sampler.probabilities(None).values()) == pytest.approx([1 / 3] * 3)

    def test_error_rates_over_the_whole_run(self) -> None:
        """a: 2 of 4 robust, then 1 of 2: 3 of 6. b: 1 of 2. c: 0 of 1. Error rates 1/2, 1/2, 1."""
        sampler = self.told(("a", [1, 1, 0, 0]), ("b", [1, 0]), ("a", [1, 0]), ("c", [0]))
        assert list(sampler.probabilities(None).values()) == pytest.approx([0.25, 0.25, 0.5])

    def test_robust_means_right_at_every_iterate(self) -> None:
        sampler = EAt()
        sampler.start(("a",), {"a": 1.0}, None)
        sampler.observe(batch_of([0, 1]), [seen("a", [1.0, 1.0], correct=[1, 1], robust_all=[0, 1])])
        assert sampler.state_dict()["robust"].tolist() == [1.0]

    def test_weights_multiply_the_error_rates(self) -> None:
        sampler = self.told(("a", [1, 0]), ("b", [0]), ("c", [0, 0]), weights={"a": 4.0, "b": 1.0, "c": 1.0})
        assert list(sampler.probabilities(None).values()) == pytest.approx([0.5, 0.25, 0.25])

    def test_where_nothing_breaks_the_weights_alone_count(self) -> None:
        sampler = self.told(("a", [1]), ("b", [1]), ("c", [1]), weights=WEIGHTS)
        assert sampler.probabilities(None) == {"a": 0.5, "b": 0.25, "c": 0.25}

    def test_forgetting_halves_what_was_counted_before(self) -> None:
        """a: (0 of 2), then (2 of 2): 0.5 * 0 + 2 of 0.5 * 2 + 2 = 2 of 3. b and c 0 of 1: p is 1/3 : 1 : 1."""
        sampler = self.told(("a", [0, 0]), ("a", [1, 1]), ("b", [0]), ("c", [0]), forgetting=0.5)
        assert list(sampler.probabilities(None).values()) == pytest.approx([1 / 7, 3 / 7, 3 / 7])

    def test_an_attack_that_is_never_drawn_does_not_keep_it_even(self) -> None:
        sampler = self.told(("a", [1, 0]), ("c", [0, 0]), weights={"a": 1.0, "b": 0.0, "c": 1.0})
        assert list(sampler.probabilities(None).values()) == pytest.approx([1 / 3, 0.0, 2 / 3])

    @pytest.mark.parametrize("forgetting", [0.0, -1.0, 1.5, math.nan])
    def test_forgetting_out_of_range_is_refused(self, forgetting: float) -> None:
        with pytest.raises(InputError, match="forgetting"):
            EAt(forgetting=forgetting)


class TestCas:
    def test_it_is_steeper_after_the_warm_up(self) -> None:
        sampler = started("cas", EVEN)
        early, late = (list(sampler.probabilities(batch_of([0], warm_up)).values()) for warm_up in (True, False))
        assert late[0] > early[0] > early[1] > early[2] > late[2]  # a is the least accurate

    def test_the_average_batch_is_of_the_phase_after_the_warm_up(self) -> None:
        sampler = started("cas")
        assert sampler.probabilities(None) == pytest.approx(sampler.probabilities(batch_of(list(range(6)))))

    def test_a_batch_leaves_the_losses_of_other_images_and_attacks_alone(self) -> None:
        sampler = started("cas")
        sampler.observe(batch_of([4, 1]), [seen("b", [0.5, 0.25], [1, 1])])
        expected = torch.full((6, 3), 2.0)
        expected[4, 1], expected[1, 1] = 0.5, 0.25
        assert torch.equal(sampler.state_dict()["loss"], expected)

    def test_the_prior_that_others_share_is_not_written_to(self) -> None:
        lived(started("cas"))
        assert torch.equal(PRIOR.loss, torch.full((6, 3), 2.0))
        assert PRIOR.accuracy.tolist() == pytest.approx([0.2, 0.5, 0.9])

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.floats(0, 1), min_size=3, max_size=3),
        st.lists(st.floats(0, 1000), min_size=3, max_size=3),
        st.floats(0, 1e6),
    )
    def test_no_exponent_overflows(self, accuracy: list[float], loss: list[float], w1: float) -> None:
        sampler = Cas(w1=w1)
        prior = Prior(ABC, torch.tensor(accuracy), torch.tensor([loss]), torch.zeros(3, 3), 1, 0.0)
        sampler.start(ABC, EVEN, prior)
        for warm_up in (True, False):
            p = list(sampler.probabilities(batch_of([0], warm_up)).values())
            assert sum(p) == pytest.approx(1)
            assert all(math.isfinite(value) for value in p)

    def test_a_prior_over_other_attacks_is_refused(self) -> None:
        for prior in (None, Prior(("a", "c", "b"), *(PRIOR.accuracy, PRIOR.loss, PRIOR.tradeoff), 1, 0.0)):
            with pytest.raises(InputError, match="prior"):
                Cas().start(ABC, EVEN, prior)

    @pytest.mark.parametrize(
        "wrong", [{"w1": -1.0}, {"w2": math.nan}, {"w3": math.inf}, {"accuracy_decay": 1.0}, {"accuracy_decay": -0.1}]
    )
    def test_hyper_parameters_out_of_range_are_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(InputError, match=next(iter(wrong))):
            Cas(**wrong)
