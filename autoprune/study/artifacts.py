"""The storage of a run's weights outside its folder: chosen, checked, and brought up to date before a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoprune.display import summarize_names
from autoprune.errors import ConfigurationError, error_message
from autoprune.records.artifacts import Artifacts, check_writable, new_artifacts, read_artifacts, write_artifacts
from autoprune.records.run_folder import RunFolder
from autoprune.records.weights_file import WeightsFile
from autoprune.study.checkpoint_state import has_state


def check_storage(folder: RunFolder, url: str | None) -> None:
    """Check that the storage of a run's weights can be written, before any work.

    Args:
        folder: Run folder, which need not exist.
        url: URL from the settings; None for the one that the folder names, if it does.

    Raises:
        ConfigurationError: The library of the storage is not installed.
        StorageError: The storage cannot be written.
    """
    stored = read_artifacts(folder.path)
    named = url if url is not None or stored is None else stored.url
    if named is not None:
        check_writable(named)


def use_storage(folder: RunFolder, url: str | None) -> None:
    """Name the storage in the run folder, move weights there that lie in the folder, and finish interrupted deletions.

    Args:
        folder: Run folder, locked by this process.
        url: URL from the settings; None for the one that the folder names, if it does.

    Raises:
        ConfigurationError: A new URL does not hold the weights that are stored so far.
        StorageError: The storage cannot be written.
    """
    check_storage(folder, url)
    stored = read_artifacts(folder.path)
    chosen = _chosen(folder, stored, url)
    if chosen is None:
        return
    files = [folder.weights_file(folder.candidate_number(name)) for name in folder.candidate_names()]
    files += [one for one in folder.checkpoint_files() if not has_state(one.path.parent)]
    if stored is not None and stored != chosen:
        _check_moved(stored, chosen, [one for one in files if one.is_uploaded and one.is_stored])
    if stored != chosen:
        write_artifacts(folder.path, chosen)
    for one in files:
        if one.is_removed and one.is_uploaded:
            one.finish_removal()
        elif one.path.is_file() and one.has_right_digest() is not False:
            one.upload()


def _chosen(folder: RunFolder, stored: Artifacts | None, url: str | None) -> Artifacts | None:
    """Return the storage of a run; None where its weights lie in the run folder."""
    if url is None:
        return stored
    if stored is None:
        return new_artifacts(url, folder.read_study().name)
    return replace(stored, url=url.rstrip("/"))


def _check_moved(old: Artifacts, new: Artifacts, files: Sequence[WeightsFile]) -> None:
    """Check that a new place holds the weights of the old one."""
    there = new.names()
    missing = [one.owner for one in files if one.name not in there]
    if missing:
        raise ConfigurationError(
            error_message(
                "storage.artifacts",
                "hold the weights that are stored so far",
                f"{new.place('')} without those of {summarize_names(missing)}",
                f"Copy {old.place('')} there, or name {old.url}.",
            )
        )
