"""Streams under faults, token by token: what each client got beside what an undisturbed client gets."""
