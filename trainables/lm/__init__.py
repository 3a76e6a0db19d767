"""The frozen language model: token trees, the trunk below the memory, its cached output, the upper blocks."""
