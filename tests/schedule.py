"""Which tests run in one worker, so that what a module has made is made once."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

#: Folders whose tests share one browser and one server.
TOGETHER = ("tests/browser/",)
#: Long modules whose tests share nothing but what is made for a parameter.
BY_PARAMETER = ("tests/conformance/test_structure.py",)


def group_of(nodeid: str) -> str:
    """The group of a test: all of a group run in one worker.

    It is its module, and in some modules its parameter.
    """
    module, _, test = nodeid.partition("::")
    for folder in TOGETHER:
        if module.startswith(folder):
            return folder
    return f"{module}::{test.partition('[')[2]}" if module in BY_PARAMETER else module


class ByModule(LoadScopeScheduling):
    """Hands the groups to the workers in the order in which their first tests were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
