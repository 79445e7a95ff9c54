"""Worlds: foreign payments imported as sealed worlds, and the sample worlds that ship with the project."""
