"""The verb that takes a sweep, or a model of it, to other tools: export."""

from __future__ import annotations

from typing import Annotated

import typer

from sweep.cli.options import StorageOption, storage

WhatArgument = Annotated[
    str, typer.Argument(metavar="ID[/TRIAL]", help="A sweep, or its model ID/NUMBER, ID/best or ID/pretrained.")
]
ToOption = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="WHERE",
        help="A model: DIR, hf:USER/REPO. A sweep: optuna:URL, tensorboard:DIR, mlflow:URI, wandb:PROJECT.",
    ),
]
SeedOption = Annotated[int | None, typer.Option(help="Of a configuration with several runs; default: the best run's.")]


def export(what: WhatArgument, to: ToOption, seed: SeedOption = None, storage_uri: StorageOption = None) -> None:
    """Take a model to a folder or the Hugging Face hub, or a sweep to Optuna's dashboard, TensorBoard, MLflow or W&B.
    The same command again replaces what it made; a repository that is new on the hub is private.

    Example: sweep export cas-20261120-213000-3f2a/best --to ./model
    """
    from sweep import exports
    from sweep.store import Store

    target, place = exports.target(to)
    sweep_id, slash, which = what.partition("/")
    made = target(exports.Asked(Store(storage(storage_uri), sweep_id), which if slash else None, seed), place)
    typer.echo(made.place)
    typer.echo(f"next: {made.what_next}", err=True)


COMMANDS = {"export": export}
