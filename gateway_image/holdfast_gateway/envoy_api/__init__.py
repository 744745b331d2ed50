"""Envoy's messages: what of its API is spoken here in protobuf's binary form."""
