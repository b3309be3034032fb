"""TaskSource: where a worker process takes the task of a study from."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import cloudpickle

from autoprune.codec import read_bytes
from autoprune.errors import ConfigurationError, StorageError, describe_exception, error_message
from autoprune.records.atomic import write_atomically
from autoprune.records.run_folder import RunFolder
from autoprune.study.script import SCRIPT_MODULE, ScriptPlace, load_script
from autoprune.task.task import Task

#: File that holds the pickled task while workers run, in the run folder.
PICKLED = "task.pickle"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSource:
    """A study script, or a pickled task. Plain data that any process can be sent.

    Attributes:
        script: Path of the study script; "" for a pickled task.
        digest: SHA-256 of the pickled task, so that a worker loads nothing but what its driver wrote.
        path: Folders that the driver imports modules from.
        start: Folder in which relative paths of the user's code are meant.
        run: Name of the run: a process that works for several runs makes the task anew for each.
    """

    script: str = ""
    digest: str = ""
    path: tuple[str, ...] = ()
    start: str = ""
    run: str = ""

    @classmethod
    def of(cls, folder: RunFolder, task: Task, script: ScriptPlace | None) -> TaskSource:
        """Make the source of a study's workers.

        Args:
            folder: Run folder, locked by this process.
            task: Task of the study, which is pickled where there is no script.
            script: Study script; None where the task was made by other code.

        Raises:
            ConfigurationError: The task cannot be pickled.
            StorageError: It cannot be written.
        """
        path, run = tuple(str(Path(entry).absolute()) for entry in sys.path), uuid.uuid4().hex
        if script is not None:  # it runs anew in each worker, and may change the working directory as it did here
            return cls(script=str(script.path), path=path, start=str(script.start), run=run)
        try:
            data = cloudpickle.dumps(task)
        except Exception as error:  # the user's objects are pickled here
            expected = "be one that can be sent to worker processes, or be made by a study script"
            remedy = "Run `autoprune run STUDY.py --workers N`, or drop what cannot be pickled."
            got = f"one that cannot be pickled ({describe_exception(error, 500)})"
            raise ConfigurationError(error_message("the task", expected, got, remedy)) from error
        write_atomically(folder.path / PICKLED, data)
        return cls(digest=hashlib.sha256(data).hexdigest(), path=path, start=_working_directory(), run=run)

    def remove(self, folder: RunFolder) -> None:
        """Delete the pickled task, when the workers have ended.

        Args:
            folder: Run folder.
        """
        if self.digest:
            (folder.path / PICKLED).unlink(missing_ok=True)

    def load(self, folder: RunFolder) -> Task:
        """Make the task in a worker process.

        Args:
            folder: Run folder.

        Returns:
            The task.

        Raises:
            ConfigurationError: The script does not run in this process.
            StorageError: The pickled task is not the one that the driver wrote.
        """
        sys.path.extend(entry for entry in self.path if entry not in sys.path)
        if self.start:
            with contextlib.suppress(OSError):  # another machine may not have it
                os.chdir(self.start)
        if self.script:
            sys.modules.pop(SCRIPT_MODULE, None)  # of another run, before the script was changed
            return load_script(Path(self.script)).task
        data = read_bytes(folder.path / PICKLED)
        if hashlib.sha256(data).hexdigest() != self.digest:
            place = str(folder.path / PICKLED)
            raise StorageError(error_message(place, "be the task that this run wrote", "another file"))
        found = pickle.loads(data)  # the digest came from the driver, not from the folder
        assert isinstance(found, Task)
        return found


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed
        return ""
