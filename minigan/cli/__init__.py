"""The command line. `main` is what the program `minigan` runs."""

from minigan.cli.app import main as main
