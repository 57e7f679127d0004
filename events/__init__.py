"""What happened: the typed catalog, the log in PostgreSQL, the wake-up over Redis, the fan-out in a process."""
