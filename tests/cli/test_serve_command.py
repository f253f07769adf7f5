"""`workflow-r1 world serve`: the simulated operator LLM by hand."""

import signal
import socket
import subprocess
import sys

import pytest
from openai import OpenAI
from typer.testing import CliRunner

from workflow_r1.cli.app import app
from workflow_r1.world.simulated_llm import MODEL_NAME


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["world", "serve", "--port", str(port)])
    assert result.exit_code == 1
    assert result.output.startswith(f"error: Cannot listen on 127.0.0.1:{port} (")
    assert result.output.endswith("choose another port, or 0 for a free one.\n")


@pytest.mark.slow
def test_it_serves_until_ctrl_c() -> None:
    command = [sys.executable, "-m", "workflow_r1.cli", "world", "serve", "--port", "0", "--api-key", "sesame"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        announced = process.stdout.readline()
        assert announced.startswith(f"{MODEL_NAME} (a simulation) at http://127.0.0.1:")
        with OpenAI(base_url=announced.split()[-1], api_key="sesame") as client:
            assert [model.id for model in client.models.list()] == [MODEL_NAME]
            reply = client.chat.completions.create(model=MODEL_NAME, messages=[{"role": "user", "content": "hello"}])
        assert reply.choices[0].message.content
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
