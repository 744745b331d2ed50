"""Benchmarks: numbers that are printed and written down, and never asserted."""
