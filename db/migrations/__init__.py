"""How the tables came to be, one file a step; `db.migrate` runs them."""
