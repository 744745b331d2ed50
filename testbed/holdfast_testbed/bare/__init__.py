"""Regions as network namespaces: every component of Kubernetes for real, without a container engine."""
