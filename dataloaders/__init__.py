"""Batching between the fields of one operation and the database."""
