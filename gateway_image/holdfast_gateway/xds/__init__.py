"""The configuration of one Envoy, from files to Envoy's own protocol (incremental xDS)."""
