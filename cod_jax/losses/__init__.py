"""Loss terms as functions on arrays."""
