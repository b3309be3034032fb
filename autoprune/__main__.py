"""python -m autoprune."""

from autoprune.cli.app import app

app()
