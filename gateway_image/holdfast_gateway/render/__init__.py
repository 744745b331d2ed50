"""From a snapshot to Envoy's configuration, as plain dicts. Pure: no clock, no files, no network."""
