"""Container images without Docker and without a registry: docker archives built from Debian and Python packages."""
