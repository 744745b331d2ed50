"""The limiter: counts tenants' requests and tokens for all gateways, behind Envoy's rate limit filter."""
