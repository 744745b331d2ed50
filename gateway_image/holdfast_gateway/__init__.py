"""The gateway: Envoy, and the agent that writes its files."""
