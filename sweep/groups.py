"""Nested worker groups whose placement group is freed whatever ends their trial: a neighbour of the engine.

Ray's own cleaner asks the dashboard whether a group's controller lives, and ends where there is none, or where several
Ray instances share the machine: the group of a trial that was stopped then holds its CPUs and GPUs for ever.
"""

from __future__ import annotations

from typing import Any

import ray._private.state
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import placement_group_callback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import placement_group_cleaner
from ray.train.v2._internal.execution.controller.placement_group_cleaner import PlacementGroupCleaner


class GroupTrainer(TorchTrainer):  # type: ignore[misc]
    """A TorchTrainer with the cleaner below."""

    def _create_default_callbacks(self) -> list[Any]:
        usual = super()._create_default_callbacks()
        return [_Cleaning() if isinstance(one, PlacementGroupCleanerCallback) else one for one in usual]


class _Cleaning(PlacementGroupCleanerCallback):  # type: ignore[misc]
    def after_controller_start(self, train_run_context: Any) -> None:
        placement_group_callback.PlacementGroupCleaner = _Cleaner  # in the controller's process, which runs this
        super().after_controller_start(train_run_context)


class _Cleaner(PlacementGroupCleaner):  # type: ignore[misc]
    """Asks the cluster itself, which every process of it is connected to."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        placement_group_cleaner.is_actor_alive = _is_alive


def _is_alive(actor_id: str, timeout: int) -> bool:
    found = ray._private.state.actors(actor_id)
    return bool(found) and found["State"] != "DEAD"
