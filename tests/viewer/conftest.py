"""A run with everything that a page has to show, and the pages over it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from support.recorded_run import make_run

from workflow_r1.viewer.app import create_app
from workflow_r1.viewer.index import Index

HOST = "127.0.0.1:4321"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run((tmp_path / "outputs" / "run").resolve())


@pytest.fixture
def open_pages(tmp_path: Path) -> Callable[..., TestClient]:
    """Opens the pages over some paths."""

    def open_them(*roots: Path) -> TestClient:
        index = Index(roots, tmp_path / "cache")
        index.update()
        client = TestClient(create_app(index, {HOST}), base_url=f"http://{HOST}")
        client.index = index  # for tests in which a run goes on
        return client

    return open_them
