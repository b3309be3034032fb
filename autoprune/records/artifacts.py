"""Artifacts: weights of a study outside its run folder, in any storage that fsspec opens, such as S3."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from autoprune.codec import Format, load_dataclass, stored, to_plain
from autoprune.display import without_password
from autoprune.errors import ConfigurationError, StorageError, describe_exception, error_message
from autoprune.plan.validation import validate
from autoprune.records.atomic import write_atomically

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

#: File of the run folder that names the storage.
ARTIFACTS = "artifacts.json"
#: Words for a URL that can be stored.
URL_WANTED = "be a URL without a password, such as s3://bucket/folder"
_CREDENTIALS = (
    "Credentials come from the environment, such as AWS_ACCESS_KEY_ID, or from the library's own configuration."
)


@stored(Format(what="the storage of weights", version=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """The place of a study's weights outside its run folder. All methods but `place` send requests to it.

    Methods raise StorageError where the storage cannot be reached or refuses a request, once the library that speaks to
    it has given up its retries, and ConfigurationError where this library is not installed.

    Attributes:
        url: URL of a folder or bucket, without credentials.
        study: Name of the study's folder there, which no other study has.
    """

    url: str
    study: str

    def __post_init__(self) -> None:
        named = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.study) is not None
        validate(
            "the storage of weights",
            [
                (is_plain_url(self.url), "url", URL_WANTED, without_password(self.url)),
                (named, "study", "be a plain name", self.study),
            ],
        )

    def place(self, name: str) -> str:
        """Return the URL of an object.

        Args:
            name: Path of a file relative to the run folder.
        """
        return f"{self.url}/{self.study}/{name}"

    def read(self, name: str) -> bytes | None:
        """Read an object.

        Args:
            name: Path of a file relative to the run folder.

        Returns:
            Its content; None where there is none.
        """
        with _opened("reading", self.place(name)) as (system, path):
            try:
                return bytes(system.cat_file(path))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write an object, which replaces an earlier one.

        Args:
            name: Path of a file relative to the run folder.
            data: Its content.
        """
        _write(self.place(name), data, folders=len(PurePosixPath(self.study, name).parts) - 1)

    def remove(self, name: str) -> None:
        """Delete an object, if it is there.

        Args:
            name: Path of a file relative to the run folder.
        """
        _remove(self.place(name))

    def names(self) -> set[str]:
        """List the objects of the study, by their paths relative to the run folder."""
        with _opened("listing", self.place("")) as (system, path):
            system.invalidate_cache()
            root = f"{path.rstrip('/')}/"
            try:
                return {found.removeprefix(root) for found in system.find(path)}
            except FileNotFoundError:
                return set()


def check_writable(url: str) -> None:
    """Check that a storage can be written and deleted from: write a small object, and delete it.

    Args:
        url: URL of a folder or bucket.

    Raises:
        ConfigurationError: The library of the storage is not installed.
        StorageError: The storage cannot be reached, or refuses a request.
    """
    place = f"{url.rstrip('/')}/autoprune-check-{secrets.token_hex(4)}"
    _write(place, b"autoprune", folders=0)
    _remove(place)


def new_artifacts(url: str, name: str) -> Artifacts:
    """Choose a folder for a study that has no weights outside its run folder yet.

    Args:
        url: URL of a folder or bucket.
        name: Name of the study.

    Returns:
        The place, with a name that no other study has.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:60].strip("._-") or "study"
    return Artifacts(url=url.rstrip("/"), study=f"{plain}-{secrets.token_hex(4)}")


def read_artifacts(run: Path) -> Artifacts | None:
    """Read where the weights of a run lie outside its folder; None where they do not.

    Args:
        run: Run folder.

    Raises:
        StorageError: The file cannot be read.
    """
    path = run / ARTIFACTS
    return load_dataclass(Artifacts, path) if path.exists() else None


def write_artifacts(run: Path, artifacts: Artifacts) -> None:
    """Write where the weights of a run lie.

    Args:
        run: Run folder.
        artifacts: The place.
    """
    write_atomically(run / ARTIFACTS, json.dumps(to_plain(artifacts), indent=1).encode())


def is_plain_url(value: object) -> bool:
    """Tell whether a value is a URL that may be stored and shown: one without a password.

    Args:
        value: Any object.

    Example:
        >>> [is_plain_url(url) for url in ("s3://bucket/x", "s3://key:secret@bucket", "folder")]
        [True, False, False]
    """
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", value):
        return False
    return without_password(value) == value


@contextlib.contextmanager
def _opened(deed: str, place: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    """Open the file system of a URL; say in plain words what is wrong with it."""
    try:
        from fsspec.core import url_to_fs

        yield url_to_fs(place)
    except ImportError as error:
        extra = "s3" if place.startswith(("s3:", "s3a:")) else "artifacts"
        remedy = f"pip install 'autoprune[{extra}]'" + (", and the library of this storage." if extra != "s3" else ".")
        raise ConfigurationError(
            error_message(f"the storage {place}", "have its library installed", error, remedy)
        ) from error
    except Exception as error:  # each file system of fsspec has exception types of its own
        raise StorageError(
            f"The storage of the weights cannot be used: {deed} {place} ended with "
            f"{without_password(describe_exception(error, 500)).removesuffix('.')}. What is finished is kept, and the "
            f"same command goes on. Check the address and the network. {_CREDENTIALS}"
        ) from error


def _write(place: str, data: bytes, *, folders: int) -> None:
    with _opened("writing", place) as (system, path):
        try:
            system.pipe_file(path, data)
        except FileNotFoundError:  # buckets have no folders, and are never made here; other file systems have
            for folder in reversed([*PurePosixPath(path).parents][:folders]):
                with contextlib.suppress(FileExistsError):
                    system.mkdir(str(folder), create_parents=False)
            system.pipe_file(path, data)


def _remove(place: str) -> None:
    with _opened("deleting", place) as (system, path), contextlib.suppress(FileNotFoundError):
        system.rm_file(path)
