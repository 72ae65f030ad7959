"""What a run says of itself while it runs, for a person to read: logs/<key>.txt in the sweep's folder."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType

from attacks.errors import InputError
from sweep.storage import Storage

_log = logging.getLogger(__name__)
HEARD = ("attacks", "trainers", "sweep")
_KEPT_LINES = 5000


class Log(logging.Handler):
    """While it is entered, what the project's loggers say in this process, after what earlier attempts said, and what
    is raised at last. `flush` puts the file in place: at the end and whenever its holder likes. Of several workers each
    has a file."""

    def __init__(self, folder: Storage, key: str, rank: int = 0) -> None:
        super().__init__(logging.INFO)
        self.folder, self.file = folder, _name(key, rank)
        self.lines = read(folder, key, rank)
        self._levels: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        moment = datetime.fromtimestamp(record.created, UTC)
        stamp = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
        self.lines += [f"{stamp} {line}" for line in self.format(record).splitlines()]

    def flush(self) -> None:
        self._put(self.folder)

    def last_words(self, text: str) -> None:
        """Of a process that is about to end: a storage that is away is not waited for."""
        self.emit(logging.makeLogRecord({"msg": text, "levelno": logging.ERROR}))
        with suppress(InputError):
            self._put(self.folder.patient(0))

    def _put(self, folder: Storage) -> None:
        folder.write(self.file, "".join(f"{line}\n" for line in self.lines[-_KEPT_LINES:]).encode())

    def __enter__(self) -> Log:
        for name in HEARD:
            logger = logging.getLogger(name)
            self._levels[name] = logger.level
            logger.setLevel(logging.INFO)
            logger.addHandler(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            _log.error("ended by %s", kind and kind.__name__, exc_info=error)
        for name, level in self._levels.items():
            logging.getLogger(name).removeHandler(self)
            logging.getLogger(name).setLevel(level)
        self.flush()


def read(folder: Storage, key: str, rank: int = 0) -> list[str]:
    """The lines of a run so far; each begins with its time (UTC)."""
    try:
        return folder.read(_name(key, rank)).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def heard(folder: Storage, key: str) -> datetime | None:
    """When a run last said something, by the clock of its host; None where it has not yet."""
    for line in reversed(read(folder, key)):
        with suppress(ValueError):
            return datetime.strptime(line.split(" ", 1)[0], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return None


def _name(key: str, rank: int) -> str:
    return f"logs/{key}.txt" if rank == 0 else f"logs/{key}.{rank}.txt"
