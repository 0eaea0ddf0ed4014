"""Token stores to batches: document order, segments and prefetching."""
