"""The command, and `python -m workflow_r1.cli` for where it is not on the path."""

import sys


def main() -> None:
    try:
        from workflow_r1.cli.app import app

        app()
    except ModuleNotFoundError as error:
        if not error.name or error.name.split(".")[0] == "workflow_r1":
            raise
        sys.exit(
            f"error: this needs {error.name}, which is not installed: install what the commands need with "
            "pip install 'workflow-r1[train]'"
        )


if __name__ == "__main__":
    main()
