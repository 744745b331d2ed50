"""Load, faults and measurement: what the clients see when something dies."""
