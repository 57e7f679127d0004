"""Who is calling and what that one may do. Pure: no I/O, no framework."""
