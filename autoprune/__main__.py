"""python -m autoprune."""

from autoprune.cli.main import app

app()
