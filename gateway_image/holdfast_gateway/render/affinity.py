"""Prompts that begin alike go to the same engine of a region, whose prefix cache holds their beginning.

The gateway that a request enters hashes the beginning in Envoy, where the body is buffered anyway, and sends the hash
along, as far as the engine: Envoy chooses a host by the headers that are left for it. Peer ports look it up in a table
of their engines (Maglev). One that dies leaves its part of the table to the others, one that comes takes a part from
each. While an engine has more requests than its bound another one is taken.

Not Envoy's ring: its entries per engine depend on how many engines there are, so that each change moves prefixes among
those that stay.
"""

from __future__ import annotations

from holdfast.api.names import PREFIX_HEADER
from holdfast.api.route import Route
from holdfast_gateway.render.values import Document, http_filter, typed

FILTER = "envoy.filters.http.lua"
SEARCHED_BYTES = 65536
"""Where in a body the prompt must begin at the latest; a longer search would hold up other requests."""
TABLE_SIZE = 65537
"""A prime, Envoy's default."""

# In JSON a quoted name that a colon follows is a key: within a text its quotes would be escaped.
SCRIPT = """\
function envoy_on_request(handle)
  local body = handle:body()
  if body == nil then return end
  local text = body:getBytes(0, math.min(body:length(), {searched} + {prefix}))
  local _, before = string.find(text, '"messages"%s*:%s*')
  if before == nil then _, before = string.find(text, '"prompt"%s*:%s*') end
  if before == nil then return end
  local one, other = 0, 0
  for at = before + 1, math.min(before + {prefix}, #text) do
    local byte = string.byte(text, at)
    one = (one * 257 + byte) % 4294967291
    other = (other * 263 + byte) % 4294967279
  end
  handle:headers():replace("{header}", string.format("%d-%d", one, other))
end
"""


def hashing() -> Document:
    """The client port's filter; it does nothing on other routes."""
    return http_filter(FILTER, "lua.v3.Lua")


def hashed(made: Document, route: Route) -> Document:
    """The client port's route, with the hash on requests if the service wants it."""
    if route.affinity is None:
        return made
    script = SCRIPT.format(searched=SEARCHED_BYTES, prefix=route.affinity.prefix_bytes, header=PREFIX_HEADER)
    config = typed("extensions.filters.http.lua.v3.LuaPerRoute", source_code={"inline_string": script})
    return made | {"typed_per_filter_config": {FILTER: config}}


def looked_up(cluster: Document, route: Route) -> Document:
    """The cluster of engines, with a table if the service wants it, in place of its other way to choose. Requests
    without a hash go to any engine."""
    if route.affinity is None:
        return cluster
    table = typed(
        "extensions.load_balancing_policies.maglev.v3.Maglev",
        table_size=TABLE_SIZE,
        consistent_hashing_lb_config={
            "hash_balance_factor": route.affinity.max_load_percent,
            # The route's own hash chooses the revision.
            "hash_policy": [{"header": {"header_name": PREFIX_HEADER}}],
        },
    )
    policy = {"typed_extension_config": {"name": "envoy.load_balancing_policies.maglev", "typed_config": table}}
    return cluster | {"load_balancing_policy": {"policies": [policy]}}
