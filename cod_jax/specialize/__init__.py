"""One-step codecs as programs that need no model code, with their constant parts folded; see docs/compiled.md."""
