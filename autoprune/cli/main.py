"""The end of a study script: its command line."""

from __future__ import annotations

import sys
from pathlib import Path

from autoprune.cli.app import app


def main() -> None:
    """Run the command line from the end of a study script.

    `python study.py --trials 20` is `autoprune run study.py --trials 20`. Does nothing while the command line imports
    the script.

    Example:
        >>> main()  # does nothing: this module is not the script that runs
    """
    import autoprune
    from autoprune.study.script import SCRIPT_MODULE

    script = sys.modules["__main__"]
    path = getattr(script, "__file__", None)
    caller = sys._getframe(1).f_globals.get("__name__")
    if caller != "__main__" or path is None:
        return
    sys.modules[SCRIPT_MODULE] = script
    arguments = sys.argv[1:]
    command = arguments.pop(0) if arguments[:1] == ["explain"] else "run"
    app(args=[command, str(path), *arguments], prog_name=Path(path).name, obj=autoprune.STARTED_IN)
