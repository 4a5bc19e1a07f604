"""What readers of rows share: CSV, Parquet, cells, templates."""
