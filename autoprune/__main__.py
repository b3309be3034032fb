"""python -m autoprune."""

from autoprune.cli import app

app()
