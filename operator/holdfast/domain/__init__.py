"""Decisions, as pure functions from frozen values to frozen values: no I/O, no clock, no randomness."""
