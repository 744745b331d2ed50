"""Real multi-region Kubernetes on one machine, for the demo, the tests and the drills."""
