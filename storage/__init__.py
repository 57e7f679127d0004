"""Objects over the S3 protocol: uploads, Parquet data, model artifacts."""
