"""Files behind a URI, through `pyarrow.fs`: object stores and whatever else it opens. And what their errors mean."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pyarrow.fs as fs

from attacks.errors import InputError

_OBJECT_STORES = ("s3", "gcs", "abfs")  # folders are only prefixes there: none is made
_ATTEMPTS = 3  # with these, a server that never answers is given up after about 12 s; by pyarrow's defaults after 100
_GCS_SECONDS = 5
_OPTIONS = (
    "region",
    "scheme",
    "endpoint_override",
    "allow_delayed_open",
    "tls_ca_file_path",
    "force_virtual_addressing",
)


@dataclass(frozen=True)
class Remote:
    """The files below `root`: each is serialised already, and written by one call to its final name."""

    filesystem: Any
    root: str

    def read(self, name: str) -> bytes:
        with self.filesystem.open_input_stream(join(self.root, name), compression=None) as stream:
            return bytes(stream.read())

    def open(self, name: str) -> Any:
        return self.filesystem.open_input_file(join(self.root, name))

    def write(self, name: str, data: bytes) -> None:
        path = join(self.root, name)
        if self.filesystem.type_name not in _OBJECT_STORES:
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        with self.filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(data)

    def create(self, name: str, data: bytes) -> None:
        if self.exists(name):
            raise FileExistsError(name)
        self.write(name, data)

    def names(self, prefix: str) -> list[str]:
        skipped = len(join(self.root, "x")) - 1
        return [info.path[skipped:] for info in self._list(prefix, recursive=True) if info.is_file]

    def folders(self) -> list[str]:
        if self.filesystem.type_name == "gcs":  # pyarrow lists only those folders there that somebody made
            found = sorted({name.partition("/")[0] for name in self.names("") if "/" in name})
        else:
            listed = self._list("", recursive=False)
            found = [info.base_name for info in listed if info.type == fs.FileType.Directory]
        if not found:
            self._expect_bucket()
        return found

    def exists(self, name: str) -> bool:
        return bool(self.filesystem.get_file_info(join(self.root, name)).is_file)

    def written_at(self, name: str) -> float | None:
        written = self.filesystem.get_file_info(join(self.root, name)).mtime_ns
        return None if written is None else written / 1e9

    def delete(self, prefix: str) -> None:
        path = join(self.root, prefix)
        kind = self.filesystem.get_file_info(path).type
        with suppress(FileNotFoundError):  # gone meanwhile, or a folder that nobody made
            if kind == fs.FileType.Directory:
                self.filesystem.delete_dir(path)
            elif kind == fs.FileType.File:
                self.filesystem.delete_file(path)

    def _list(self, prefix: str, recursive: bool) -> list[Any]:
        selector = fs.FileSelector(join(self.root, prefix), recursive=recursive, allow_not_found=True)
        return list(self.filesystem.get_file_info(selector))

    def _expect_bucket(self) -> None:
        """A bucket that is not there lists like an empty one."""
        bucket = self.root.partition("/")[0]
        known = self.filesystem.type_name not in _OBJECT_STORES or self.filesystem.get_file_info(bucket).type
        if known == fs.FileType.NotFound:
            raise OSError("NO_SUCH_BUCKET")


def opened(uri: str) -> tuple[Any, str]:
    """The file system of a URI, and the path in it."""
    _check_credentials(uri)
    filesystem, path = fs.FileSystem.from_uri(uri)
    return _patient(filesystem), path


def _patient(filesystem: Any) -> Any:
    """The same file system, which gives up early and writes a small file by one request."""
    if isinstance(filesystem, fs.S3FileSystem):
        strategy = fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS)
        return fs.S3FileSystem(**_options(filesystem) | {"retry_strategy": strategy, "allow_delayed_open": True})
    if filesystem.type_name == "gcs" and not _options(filesystem)["retry_time_limit"]:
        limited = _options(filesystem) | {"retry_time_limit": timedelta(seconds=_GCS_SECONDS)}
        return type(filesystem)(**{name: value for name, value in limited.items() if value not in ("", None)})
    return filesystem


def _options(filesystem: Any) -> dict[str, Any]:
    """What a file system was made with: the arguments that it is pickled by."""
    return dict(filesystem.__reduce__()[1][0])


def _check_credentials(uri: str) -> None:
    rest = uri.partition("://")[2].partition("?")[0]
    before, at, _ = rest.rpartition("@")
    if at and ":" in before and re.search(r"/|%(?![0-9A-Fa-f]{2})", before):
        raise InputError(
            "expected credentials in a URI to be percent-encoded (/ as %2F, % as %25): encode them, or leave "
            "them out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


# what a person sees


def shown(uri: str) -> str:
    """The URI as a person reads it: without credentials and options."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def typed(uri: str) -> str:
    """The URI to type again: without credentials, with those options that are known to hold no secret."""
    known = [(name, value) for name, value in parse_qsl(urlsplit(uri).query) if name in _OPTIONS]
    return shown(uri) + (f"?{urlencode(known, safe=':/')}" if known else "")


def reason(uri: str, error: Exception) -> str:
    """What an error of the file system means, and what to set: one line."""
    text = str(error).replace(uri, shown(uri))
    about = _S3 if uri.startswith("s3") else _GCS if uri.startswith(("gs", "gcs")) else {}
    for pattern, meaning in about.items():
        if re.search(pattern, text):
            return meaning.format(bucket=shown(uri).split("/")[2], details=_details(text), found=_found(uri))
    first = (text.splitlines() or [type(error).__name__])[0]
    return f"{getattr(error, 'strerror', None) or first} (set --storage or $SWEEP_STORAGE)"


def refused(error: Exception) -> bool:
    """Whether a server answered what it will answer again: no such bucket, not with these credentials."""
    return bool(
        re.search("NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT|ACCESS_DENIED|PERMISSION_DENIED", str(error))
    )


_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_UNKNOWN_BUCKET = "there is no bucket {bucket!r}: make it, or name another by --storage or $SWEEP_STORAGE"
_S3 = {
    "NO_SUCH_BUCKET|InvalidBucketName": _UNKNOWN_BUCKET,
    "INVALID_ACCESS_KEY_ID|INVALID_CLIENT|UNRECOGNIZED_CLIENT": f"the server does not know the access key: {_KEYS}",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is not the access key's: set AWS_SECRET_ACCESS_KEY",
    "ExpiredToken|EXPIRED": f"the credentials have expired: {_KEYS}",
    "SKEWED": "this machine's clock is wrong by more than the server allows: set it (`sweep doctor` tells by how much)",
    "ACCESS_DENIED|HTTP status 403": f"access denied ({{found}}): {_KEYS}, to credentials that may read, write, list "
    "and delete there",
    "configured region|HTTP status 301|AuthorizationHeaderMalformed": "the bucket is in another region{details}: set "
    "region= in the URI (s3://{bucket}/...?region=...)",
    "NETWORK_CONNECTION": "the server does not answer{details}: check the network, or set endpoint_override=HOST:PORT "
    "and scheme= in the URI, or AWS_ENDPOINT_URL",
}
_LOGIN = "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run `gcloud auth application-default login`"
_GCS = {
    "OAuth2 access token|UNAUTHENTICATED": f"no credentials that Google takes: {_LOGIN}",
    "PERMISSION_DENIED": f"access denied: {_LOGIN}, as somebody who may read, write, list and delete there",
    "NO_SUCH_BUCKET|NOT_FOUND": _UNKNOWN_BUCKET,
    "UNAVAILABLE": "the server does not answer{details}: check the network, or endpoint_override= in the URI",
}


def _details(text: str) -> str:
    """The part of a long message that says most."""
    found = re.search(r"Details: (.*)|CURL error \[\d+\]=([^\n]*?)(?: error_info|$)|(located in '[^']*')", text)
    return f" ({next(group for group in found.groups() if group).rstrip('.')})" if found else ""


def _found(uri: str) -> str:
    """Which credentials for S3 pyarrow will have taken."""
    if "@" in urlsplit(uri).netloc:
        return "with the credentials in the URI"
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return "with those of AWS_ACCESS_KEY_ID"
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    if Path(named or "~/.aws/credentials").expanduser().exists():
        return f"with profile {os.environ.get('AWS_PROFILE') or 'default'!r}"
    return "no credentials were found, nor a role of this machine that may"


def join(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}" if name else root
