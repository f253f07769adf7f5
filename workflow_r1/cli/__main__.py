"""`python -m workflow_r1.cli`, for where the command is not on the path."""

from workflow_r1.cli.app import app

app()
