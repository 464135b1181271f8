"""The command `cod`: a module per command, which says what its options are and what it does."""
