"""Write files and folders atomically, by one process at a time: after a crash the old or the new content is there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from autoprune.errors import AutopruneError, StorageError, error_message, plain_text


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by way of a temporary one, fsync and rename: readers see the old file or the new one, whole.

    Args:
        path: The file; missing folders are made.
        data: Its content.

    Raises:
        StorageError: The path is a folder, or the file cannot be written, as on a full disk; nothing is left behind.
    """
    if path.is_dir():
        raise StorageError(error_message(str(path), "be a file to write", "a folder", "Name a file in it."))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(cannot_write(path, error)) from error
    finally:
        with contextlib.suppress(OSError):  # it exists only after an error
            temporary.unlink(missing_ok=True)


def is_being_written(temporary: Path) -> bool:
    """Tell whether another living process of this machine may be writing a temporary file.

    Args:
        temporary: Temporary file of `write_atomically`, whose name holds the number of its process.

    Returns:
        True where it may be; False for a file of this process, and where the process has ended.
    """
    process = temporary.suffixes[-2][1:] if len(temporary.suffixes) > 1 else ""
    if not process.isascii() or not process.isdigit() or int(process) == os.getpid():
        return False
    return is_process(int(process))


def is_process(number: int) -> bool:
    """Tell whether there is a process of this machine.

    Args:
        number: Its process number.

    Returns:
        Whether there is one with this number.
    """
    try:
        os.kill(number, 0)  # asks, and sends nothing
    except PermissionError:  # it is another user's
        return True
    except (OSError, OverflowError):
        return False
    return True


def cannot_write(path: Path, error: OSError) -> str:
    """Build the message about a file or folder that cannot be written.

    Args:
        path: The file or folder.
        error: The error of the operating system.

    Returns:
        The message.
    """
    remedy = "What is finished is kept. Free some space or change the permissions, and run the same command again."
    return f"{plain_text(str(path))} cannot be written ({error.strerror or repr(error)}). {remedy}"


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no links.

    Args:
        source: The file.
        target: Its second name.

    Raises:
        OSError: It cannot be copied.
    """
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
        with target.open("rb+") as file:
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut.

    Args:
        folder: The folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(lock_file: Path, busy: AutopruneError, *, patience: float = 0.0) -> Iterator[None]:
    """Keep other processes out of the block. The lock of a dead process is free.

    Args:
        lock_file: File to lock, which stays behind.
        busy: Error for a lock that another process holds.
        patience: Seconds to wait for it.

    Yields:
        Nothing.

    Raises:
        AutopruneError: `busy`, where another process holds the lock.
        StorageError: The lock cannot be written.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise busy from None
    except OSError as error:  # Timeout is an OSError, too
        raise StorageError(cannot_write(lock_file, error)) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Write a folder atomically: it appears in its place when the block ends, and not at all if the block fails.

    Args:
        final: Place of the folder.

    Yields:
        Temporary folder to write into.

    Raises:
        StorageError: The folder cannot be written.
    """
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync_folder(final.parent)
    except OSError as error:
        raise StorageError(cannot_write(final, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
