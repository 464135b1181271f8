"""One-step codecs without what is constant in them, as programs that need no model code (spec section 5)."""
