"""Metrics: series, their points as rows and in chunks, their histories, and new points as they come.

A point is in one place at a time: a row of `metric_points`, or one of the up to 16,384 of a row of `metric_chunks`.
Chunks of a series hold ranges of its order that do not overlap; rows may stand anywhere. Whoever writes points of a
series has its row locked (`series.keep_series`). A point keeps the transaction that wrote it, wherever it moves, so a
reader of the stream asks for what its last snapshot could not see.
"""
