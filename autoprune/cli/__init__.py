"""The command line, one file a command."""

from autoprune.cli.app import app as app
