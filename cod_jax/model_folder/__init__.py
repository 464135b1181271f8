"""Model folders: reading, writing and finding them, and the decoding defaults that they hold."""
