"""Batches from token stores: document order, segments and prefetching."""
