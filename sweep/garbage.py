"""What a finished sweep no longer needs: the models and checkpoints of all but its best trials."""

from __future__ import annotations

from sweep.store import COMPLETE, FAILED, PRUNED, Store


def collect(store: Store, keep: int, dry_run: bool = False) -> list[str]:
    """Removes checkpoints/<key>/ of the trials that have ended, but for the `keep` best configurations' and their
    controls'; the keys removed. Equal work under several numbers goes only where all of them have ended and none is
    kept."""
    kept = {run["key"] for one in store.configurations()[:keep] for run in one["runs"] + one["replays"]}
    rows = store.trials().to_pylist()
    left = {row["key"] for row in rows if row["state"] not in (COMPLETE, FAILED, PRUNED)}
    there = {name.split("/")[1] for name in store.folder.names("checkpoints")}
    gone = sorted({row["key"] for row in rows} & there - kept - left)
    for key in gone if not dry_run else []:
        store.folder.delete(f"checkpoints/{key}")
    return gone
