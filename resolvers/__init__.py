"""How a root field gets its value: plain async functions that read the context and return rows."""
