"""Parts that are added from outside the package, each with the config or command that uses it."""
