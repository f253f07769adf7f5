"""Workflow-R1: reinforcement learning of agentic workflows, turn by turn, with GSsPO."""

__version__ = "0.1.0"
