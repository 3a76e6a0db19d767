"""The frozen language model: token trees, the trunk below the memory, the cache of its output, the upper blocks."""
