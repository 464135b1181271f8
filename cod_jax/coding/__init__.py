"""From symbols to bytes and back; integers only, no models."""
