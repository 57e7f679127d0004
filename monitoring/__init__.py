"""What operators see of a running Head AI: logs, metrics and health."""
