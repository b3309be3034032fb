"""The file of weights of a candidate: in the run folder, or in the storage of artifacts, with its digest."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

from autoprune.codec import read_bytes
from autoprune.errors import AutopruneWarning, NotFoundError, StorageError, error_message
from autoprune.records.artifacts import ARTIFACTS, Artifacts, read_artifacts
from autoprune.records.atomic import cannot_write, write_atomically
from autoprune.records.user_cache import cache_weights, read_cached_weights

WEIGHTS = "weights.safetensors"
#: Digest of the weights, in the format of `sha256sum --check`.
DIGEST = "weights.sha256"
#: Empty file that marks deleted weights.
REMOVED = "weights.removed"
#: Empty file that marks weights in the storage of artifacts. A file of weights beside it comes first.
UPLOADED = "weights.uploaded"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """Weights in a folder of a run. Only `write`, `read_uploaded`, `upload` and `remove` ask the storage of artifacts.

    Attributes:
        run: Run folder.
        folder: Folder of the weights in it, such as candidates/00003.
        owner: Whose weights they are, for messages, such as candidate 3.
    """

    run: Path
    folder: str
    owner: str

    @property
    def path(self) -> Path:
        """Return the path of the file in the run folder, which need not exist."""
        return self.run / self.folder / WEIGHTS

    @property
    def name(self) -> str:
        """Return the name of the object in the storage of artifacts."""
        return f"{self.folder}/{WEIGHTS}"

    @property
    def is_uploaded(self) -> bool:
        """Return whether the storage of artifacts holds the weights; a file in the run folder comes first."""
        return self.path.with_name(UPLOADED).is_file()

    @property
    def is_removed(self) -> bool:
        """Return whether the weights were deleted."""
        return self.path.with_name(REMOVED).is_file()

    @property
    def is_stored(self) -> bool:
        """Return whether the weights are stored and not deleted."""
        return (self.path.is_file() or self.is_uploaded) and not self.is_removed

    @property
    def place(self) -> str:
        """Return the path or URL of the weights, for people."""
        artifacts = read_artifacts(self.run) if self.is_uploaded and not self.path.exists() else None
        return str(self.path) if artifacts is None else artifacts.place(self.name)

    def write(self, data: bytes, into: Path) -> None:
        """Write the weights and their digest before their folder is in its place.

        They are uploaded where the run has a storage of artifacts. Where that fails, they stay in the run folder with
        a warning, until the next run.

        Args:
            data: Content of the file.
            into: Temporary folder, which is renamed to the folder of the weights.
        """
        artifacts = read_artifacts(self.run)
        if artifacts is not None and self._is_uploaded_now(artifacts, data):
            write_atomically(into / UPLOADED, b"")
        else:
            write_atomically(into / WEIGHTS, data)
        write_atomically(into / DIGEST, digest_line(data))

    def read_uploaded(self) -> bytes | None:
        """Read uploaded weights: from the user's cache where it holds them, else from the storage of artifacts.

        Returns:
            Content of the file, which has the right digest; None for weights that lie in the run folder.

        Raises:
            NotFoundError: The storage does not hold them.
            StorageError: The storage cannot be read, or holds other weights.
        """
        if not self.is_uploaded or self.path.exists():
            return None
        line = read_bytes(self.path.with_name(DIGEST))
        digest = line[:64].decode(errors="replace")
        cached = read_cached_weights(digest) if digest.isalnum() else None
        if cached is not None:
            return cached
        artifacts = self._artifacts()
        data = artifacts.read(self.name)
        if data is None:
            raise self.missing_error()
        if digest_line(data) != line:
            raise self.digest_error()
        cache_weights(digest, data)
        return data

    def upload(self) -> None:
        """Move weights from the run folder to its storage of artifacts.

        Raises:
            StorageError: The storage cannot be written, or the run has none.
        """
        data, digest = read_bytes(self.path), self.path.with_name(DIGEST)
        self._artifacts().write(self.name, data)
        if not digest.exists():  # a run of a version that stored none
            write_atomically(digest, digest_line(data))
        write_atomically(self.path.with_name(UPLOADED), b"")
        self._unlink(self.path)

    def try_to_upload(self) -> None:
        """Move weights to the storage of artifacts, if the run has one; where that fails, they stay with a warning."""
        if self.path.is_file() and read_artifacts(self.run) is not None:
            try:
                self.upload()
            except StorageError as error:
                self._warn(error)

    def remove(self) -> None:
        """Delete the weights and mark them as deleted. What cannot be deleted now, is by the next run."""
        write_atomically(self.path.with_name(REMOVED), b"")
        self._unlink(self.path)
        if not self.is_uploaded:
            return
        try:
            self.finish_removal()
        except StorageError as error:
            warnings.warn(f"{error} The next run deletes them.", AutopruneWarning, stacklevel=2)

    def finish_removal(self) -> None:
        """Delete weights in the storage of artifacts that are marked as deleted.

        Raises:
            StorageError: The storage cannot be written.
        """
        self._artifacts().remove(self.name)
        self._unlink(self.path.with_name(UPLOADED))

    def has_right_digest(self) -> bool | None:
        """Tell whether the file in the run folder is the one that was written; None where no digest is stored."""
        digest = self.path.with_name(DIGEST)
        return read_bytes(digest) == digest_line(read_bytes(self.path)) if digest.exists() else None

    def missing_error(self) -> NotFoundError:
        """Return the error for weights that are not there."""
        reason = "Weights of dominated candidates are deleted unless StorageSettings.collect_garbage is False."
        if not self.is_removed:
            reason = "autoprune did not delete them; evaluate_plan with the candidate's plan makes it again."
        return NotFoundError(f"the weights of {self.owner} are missing ({self.place}). {reason}")

    def digest_error(self) -> StorageError:
        """Return the error for weights that are not those of the digest."""
        return StorageError(error_message(self.place, f"hold the weights that {DIGEST} tells", "another file"))

    def _artifacts(self) -> Artifacts:
        found = read_artifacts(self.run)
        if found is None:
            got = f"{self.run} without it"
            raise StorageError(error_message("a run folder with uploaded weights", f"hold {ARTIFACTS}", got))
        return found

    def _is_uploaded_now(self, artifacts: Artifacts, data: bytes) -> bool:
        try:
            artifacts.write(self.name, data)
        except StorageError as error:
            self._warn(error)
            return False
        return True

    def _warn(self, error: StorageError) -> None:
        text = f"{error} The weights of {self.owner} stay in the run folder until the next run uploads them."
        warnings.warn(text, AutopruneWarning, stacklevel=3)

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(cannot_write(path, error)) from error


def digest_line(data: bytes, name: str = WEIGHTS) -> bytes:
    """Return the line of a file in a file of digests.

    Args:
        data: Content of the file.
        name: Name of the file.
    """
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()
