"""The ledger: one record of each request of a client, from what Envoy and the relay spool to where it is kept."""
