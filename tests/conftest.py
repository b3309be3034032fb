"""Shape types are checked in every test; torch runs on one thread, which is quicker for small models."""

from __future__ import annotations

from jaxtyping import install_import_hook

# Before anything of autoprune is imported: jaxtyping checks the annotated shapes through beartype.
_hook = install_import_hook("autoprune.criteria", "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
