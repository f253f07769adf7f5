"""A policy as the rollout meets it: its prompt, its chat template, its tokens."""
