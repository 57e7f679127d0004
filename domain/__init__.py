"""The rules: each function is one thing a person or a worker can do.

A function takes the session of the caller's transaction, checks the rules, writes rows and publishes events.
Saying no raises `Refused` with values; anything else that raises is a bug or an outage.
"""
