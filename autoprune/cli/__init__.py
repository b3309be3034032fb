"""The command line, one file a command."""

from autoprune.cli.main import app as app
