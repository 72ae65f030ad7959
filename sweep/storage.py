"""Files under one root: a local path (or NFS), or any URI that `pyarrow.fs` opens. Whole files in, whole files out."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from time import monotonic, sleep
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as fs

from attacks.errors import InputError
from sweep import object_store

_log = logging.getLogger(__name__)
T = TypeVar("T")

DEFAULT = "./results"
PATIENCE_SECONDS = 600.0
"""How long a running sweep waits for a storage that is full, read-only or away."""
_AGAIN_SECONDS = 1.0
_TEMPORARY = ".tmp-"


def default_uri() -> str:
    """$SWEEP_STORAGE, or ./results."""
    return os.environ.get("SWEEP_STORAGE") or DEFAULT


@dataclass(frozen=True, repr=False)
class Storage:
    """A root; names below it are relative, parted by "/". Unreadable or unwritable: InputError, one line.

    A local file is complete or absent: it is written beside its place, synced, and renamed. Elsewhere it is serialised
    first and written by one call to its final name, since an object store's rename is copy and delete.

    What fails is tried again for `patience` seconds, unless trying again cannot mend it.
    """

    uri: str
    patience: float = 0.0

    def __post_init__(self) -> None:
        if "://" not in self.uri:
            object.__setattr__(self, "uri", str(Path(self.uri or ".").expanduser().absolute()))
        self._do("open", "", lambda: self._files)

    def __repr__(self) -> str:
        return f"Storage({self.where()!r})"

    def __reduce__(self) -> tuple[type[Storage], tuple[str, float]]:
        return Storage, (self.uri, self.patience)

    def patient(self, seconds: float = PATIENCE_SECONDS) -> Storage:
        """The same storage with that much patience."""
        return replace(self, patience=seconds)

    def where(self, name: str = "") -> str:
        """The place as a person reads it: without the credentials and options that a URI may carry."""
        return object_store.join(object_store.shown(self.uri) if "://" in self.uri else self.uri, name)

    def typed(self) -> str:
        """What to type after --storage to come here again; credentials are left out."""
        return object_store.typed(self.uri) if "://" in self.uri else self.uri

    def child(self, prefix: str) -> Storage:
        """The storage whose root is the folder `prefix` of this one."""
        if "://" not in self.uri:
            return Storage(object_store.join(self.uri, _checked(prefix)), self.patience)
        parts = urlsplit(self.uri)
        return Storage(parts._replace(path=object_store.join(parts.path, _checked(prefix))).geturl(), self.patience)

    @property
    def exclusive(self) -> bool:
        """Whether `create` has one winner; elsewhere it is a check and a write."""
        return isinstance(self._files, _Local)

    def read(self, name: str) -> bytes:
        """The whole file; FileNotFoundError where there is none."""
        return self._do("read", name, lambda: self._files.read(_checked(name)), missing=True)

    def open(self, name: str) -> pa.NativeFile:
        """The file, for reading parts of it; FileNotFoundError where there is none."""
        return self._do("read", name, lambda: self._files.open(_checked(name)), missing=True)

    def write(self, name: str, data: bytes) -> None:
        """Puts the whole file in place, over an older one."""
        self._do("write", name, lambda: self._files.write(_checked(name), data))

    def create(self, name: str, data: bytes) -> None:
        """Puts the file in place; FileExistsError where one is (see `exclusive`)."""
        self._do("write", name, lambda: self._files.create(_checked(name), data))

    def names(self, prefix: str = "") -> list[str]:
        """Every file at any depth below the folder `prefix`, sorted; none where the folder is missing."""
        found = self._do("list", prefix, lambda: self._files.names(_checked(prefix, empty=True)))
        return sorted(name for name in found if _TEMPORARY not in name)

    def folders(self) -> list[str]:
        """The folders right below the root, sorted."""
        return self._do("list", "", lambda: sorted(self._files.folders()))

    def exists(self, name: str) -> bool:
        return self._do("read", name, lambda: self._files.exists(_checked(name)))

    def written_at(self, name: str) -> float | None:
        """When a file was written, by the storage's clock, in seconds since 1970; None where that is not told."""
        return self._do("read", name, lambda: self._files.written_at(_checked(name)), missing=True)

    def delete(self, prefix: str) -> None:
        """Removes a file, or a folder with all in it; a missing one is no error."""
        self._do("delete", prefix, lambda: self._files.delete(_checked(prefix)))

    @cached_property
    def _files(self) -> _Files:
        if "://" not in self.uri:
            return _Local(Path(self.uri))
        return _opened(self.uri)

    def _do(self, verb: str, name: str, work: Callable[[], T], missing: bool = False) -> T:
        """The work's result. What a file system raises becomes one line for the user, once patience is at its end."""
        until = monotonic() + self.patience
        away = False
        while True:
            try:
                return work()
            except (FileExistsError, InputError):
                raise
            except (OSError, ValueError, pa.ArrowException, ImportError) as error:
                if missing and isinstance(error, FileNotFoundError):
                    raise
                line = f"cannot {verb} {self.where(name)}: {object_store.reason(self.uri, error)}"
                if monotonic() >= until or _lasting(error):
                    raise InputError(line) from error
                if not away:
                    _log.warning("%s; trying again for %.0f s", line, self.patience)
                away = True
            sleep(_AGAIN_SECONDS)


def _lasting(error: Exception) -> bool:
    """Whether trying again cannot mend it."""
    lasting = not isinstance(error, OSError) or isinstance(error, (NotADirectoryError, IsADirectoryError))
    return lasting or object_store.refused(error)


class _Files(Protocol):
    def read(self, name: str) -> bytes: ...
    def open(self, name: str) -> pa.NativeFile: ...
    def write(self, name: str, data: bytes) -> None: ...
    def create(self, name: str, data: bytes) -> None: ...
    def names(self, prefix: str) -> list[str]: ...
    def folders(self) -> list[str]: ...
    def exists(self, name: str) -> bool: ...
    def written_at(self, name: str) -> float | None: ...
    def delete(self, prefix: str) -> None: ...


@dataclass(frozen=True)
class _Local:
    root: Path

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def open(self, name: str) -> pa.NativeFile:
        return pa.OSFile(str(self.root / name))

    def write(self, name: str, data: bytes) -> None:
        with self._beside(name, data) as temporary:
            os.replace(temporary, self.root / name)

    def create(self, name: str, data: bytes) -> None:
        with self._beside(name, data) as temporary:
            try:
                os.link(temporary, self.root / name)
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                with (self.root / name).open("xb") as file:
                    file.write(data)

    @contextmanager
    def _beside(self, name: str, data: bytes) -> Iterator[Path]:
        """The data, synced, in a temporary file that is gone afterwards. Its name does not end in .parquet."""
        final = self.root / name
        _make_folder(final.parent)
        temporary = final.with_name(f"{final.name}{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            with suppress(OSError):
                temporary.unlink()

    def names(self, prefix: str) -> list[str]:
        found = os.walk(self.root / prefix, onerror=_unless_missing)
        folders = ((Path(folder).relative_to(self.root).as_posix(), files) for folder, _, files in found)
        return [file if folder == "." else f"{folder}/{file}" for folder, files in folders for file in files]

    def folders(self) -> list[str]:
        try:
            with os.scandir(self.root) as entries:
                return [entry.name for entry in entries if entry.is_dir()]
        except FileNotFoundError:
            return []

    def exists(self, name: str) -> bool:
        return (self.root / name).is_file()

    def written_at(self, name: str) -> float:
        return (self.root / name).stat().st_mtime

    def delete(self, prefix: str) -> None:
        path = self.root / prefix
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@lru_cache(maxsize=64)
def _opened(uri: str) -> _Files:
    """Opened once a process: a client of an object store costs credentials and connections."""
    filesystem, path = object_store.opened(uri)
    return _Local(Path(path)) if isinstance(filesystem, fs.LocalFileSystem) else object_store.Remote(filesystem, path)


def _checked(name: str, empty: bool = False) -> str:
    """The name, if it stays below the root."""
    if (empty and not name) or all(part not in ("", ".", "..") for part in name.split("/")):
        return name
    raise InputError(f"expected a name below the storage's root, got {name!r}")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # a file is in its place: not what FileExistsError means to callers of create
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
