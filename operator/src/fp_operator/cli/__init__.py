"""The `fp` command: one typer application, verbs by topic."""
