"""Imported first by the command: ends it with one sentence on Windows, which lacks modules that the others import."""

import sys

if sys.platform == "win32":
    sys.exit("error: Workflow-R1 runs on Linux: on Windows install WSL 2 ('wsl --install') and use it there.")
