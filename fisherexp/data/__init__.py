"""Data sets as uint8 tensors in memory, batches by index; files on disk behind the same face."""
