"""From a source of questions to verl's parquet files, and the evaluation sets by name."""
