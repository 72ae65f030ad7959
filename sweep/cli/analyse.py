"""The verbs that look into a sweep's trials: show, diff, pareto, importance. None of them trains, attacks or starts
Ray."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sweep.cli.options import FormatOption, IdArgument, StorageOption, storage

TrialArgument = Annotated[
    str, typer.Argument(metavar="TRIAL", help="SWEEP/NUMBER, SWEEP/best or SWEEP/pretrained; SWEEP alone: its best.")
]
ACCURACIES, CURVES = "accuracies (%)", "curves"
ValSplitOption = Annotated[str, typer.Option(help="val or test.")]


def show(trial: TrialArgument, storage_uri: StorageOption = None, format: FormatOption = "table") -> None:
    """Show all that is stored of a trial: settings, runs, accuracies, curves, environment, commands to do it again.

    Example: sweep show cas-20261120-213000-3f2a/best
    """
    from sweep.analysis import reference, sections
    from sweep.analysis.account import account

    sections.expect_format(format)
    told = account(reference.find(trial, storage(storage_uri)))
    percent = {ACCURACIES: {"accuracy", "low", "high"}, CURVES: {"train_accuracy"}}
    sections.show(told, _readable(told), format, percent)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A trial: SWEEP/NUMBER, SWEEP/best, or SWEEP, its best.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one, of the same sweep or not.")],
    split: ValSplitOption = "val",
    only_changed: Annotated[bool, typer.Option("--only-changed", help="Leave out equal accuracies.")] = False,
    storage_uri: StorageOption = None,
    format: FormatOption = "table",
) -> None:
    """Compare two trials: settings that differ, accuracies with the paired 95 % interval of B - A, environments.

    Example: sweep diff cas-20261120-213000-3f2a/0 cas-20261120-213000-3f2a/best
    """
    from sweep.analysis import reference, sections
    from sweep.analysis.difference import difference

    sections.expect_format(format)
    kept = storage(storage_uri)
    told = difference(reference.find(a, kept), reference.find(b, kept), split, only_changed=only_changed)
    title = f"A = {told['A']}, B = {told['B']}, on split {split}"
    alike = "the starting model has no settings" if told["settings"] is None else "no setting differs"
    shown = {title: told["settings"] or [alike], ACCURACIES: _filled(told["accuracies"])}
    percent = {ACCURACIES: {"A", "B", "difference", "low", "high"}}
    sections.show(told, shown | {"environment": told["environment"]}, format, percent)


def pareto(
    sweep_id: IdArgument,
    x: Annotated[str, typer.Option(help="clean, an attack, avg_lp, avg_semantic, average or union(A,B).")] = "clean",
    y: Annotated[str, typer.Option(help="Another one of these.")] = "average",
    split: ValSplitOption = "val",
    storage_uri: StorageOption = None,
    format: FormatOption = "table",
) -> None:
    """Show which configurations no other one beats in two accuracies at once, and which of the others only noise beats.

    Example: sweep pareto cas-20261120-213000-3f2a --x clean --y average
    """
    from sweep import render
    from sweep.analysis.pareto import front
    from sweep.store import Store

    rows = front(Store(storage(storage_uri), sweep_id), split, x, y)
    render.show(rows, format, percent={x, y})


def importance(
    sweep_id: IdArgument,
    evaluator: Annotated[str, typer.Option(help="fanova or ped-anova.")] = "fanova",
    target: Annotated[
        str, typer.Option(help="The value, or an accuracy on the validation split: clean, an attack, average, ...")
    ] = "value",
    storage_uri: StorageOption = None,
    format: FormatOption = "table",
) -> None:
    """Show how important each searched parameter was; in a joint space within each method, and the choice of method.

    Example: sweep importance cas-20261120-213000-3f2a --evaluator ped-anova
    """
    from sweep import render
    from sweep.analysis import importance as shares
    from sweep.store import Store

    rows = shares.importance(Store(storage(storage_uri), sweep_id), evaluator, target)
    finished = max(row["trials"] for row in rows)
    typer.echo(f"over {finished} finished trials; from few, importance is mostly noise", err=True)
    render.show(rows, format)


COMMANDS = {"show": show, "diff": diff, "pareto": pareto, "importance": importance}


def _readable(told: dict[str, Any]) -> dict[str, Any]:
    """The sections of a trial's account as a person reads them."""
    from sweep.analysis.sections import sparkline

    def spark(key: str, name: str) -> str:
        return sparkline([row[name] for row in told["curves"] if row["key"] == key])

    runs = [
        row | {"loss": spark(row["key"], "train_loss"), "accuracy": spark(row["key"], "train_accuracy")}
        for row in told["runs"]
    ]
    hidden = ("key", "seconds_attack", "seconds_train", "forwards", "backwards")
    curves = [
        {name: value for name, value in row.items() if name not in hidden} | {"probabilities": _in_short(row)}
        for row in told["curves"]
    ]
    return {
        told["trial"]["trial"]: [told["trial"]],
        "configuration": told["configuration"],
        "runs": _filled(runs),
        "errors": [f"seed {row['seed']}: {row['error']}" for row in told["errors"]],
        ACCURACIES: _filled(told["attacks"]),
        CURVES: _filled(curves),
        "environment": told["environment"],
        "commands": [line for what, command in told["commands"].items() for line in _typed(what, command)],
    }


def _typed(what: str, command: str | None) -> tuple[str, ...]:
    if command is None:
        return (f"# {what}: not by this version, whose settings are others",)
    return (f"# {what}", command)


def _filled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without the columns that are empty in all of them."""
    held = {name for row in rows for name, value in row.items() if value not in (None, "")}
    return [{name: value for name, value in row.items() if name in held} for row in rows]


def _in_short(row: dict[str, Any]) -> str:
    """The likeliest attacks of an epoch."""
    likeliest = sorted(row["probabilities"].items(), key=lambda one: -one[1])
    return ", ".join(f"{name} {share:.2f}" for name, share in likeliest[:3]) + (", ..." if len(likeliest) > 3 else "")
