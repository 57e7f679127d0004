"""What callers send: the input objects, each beside its limits, shown by the schema as they stand here.

An optional field that is left out, or given as null, arrives as None (`schema.arguments` sees to it).
"""
