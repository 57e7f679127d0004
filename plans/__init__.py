"""How operations are executed: whole levels at once where the schema says enough, field by field where it does not.

`declared` is what fields say of themselves; `compiler` turns an operation into `steps` over `shapes`; `cache` keeps
what was compiled; `executor` runs it where graphql-core would have run, and hands everything else to graphql-core.
"""
