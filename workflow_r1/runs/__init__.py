"""Starting a training run: the recipe, the checks before it, the trainer process, progress and the report."""
