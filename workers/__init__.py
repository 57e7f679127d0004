"""The processes beside the API: one job function each."""
