"""Which route table a request meets: one for each service and port, and one for each port for whatever names none.

A request's table is named by a header that is Envoy's own. At peer and outbound ports it is made from the header that
names the service. At the client port a request begins with the table of those that name no service; once its model is
known (from the body, or by KServe's protocol from the path or the first message) it is given that service's table, and
keeps it if there is a route for it.

So neither the time to find a request's route nor the time to change a service's grows with the number of services:
Envoy builds a table as a whole and tries its routes one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from holdfast.api.names import SERVICE_HEADER
from holdfast_gateway.render.values import ADS, MODEL_METADATA, Document, http_filter, typed

TABLE_HEADER = "x-holdfast-table"
SCOPE = "config.route.v3.ScopedRouteConfiguration"
NONE = ""
"""In place of a model or a service: none is named."""

CHOOSER = "holdfast.table"
"""Name of the filter that chooses, and the namespace of what it looks for in a route's metadata."""

LONGEST_NAME = 512
"""Bytes of a model's name that are looked up."""
VERBS = ("/infer", "/ready", "/config", "/stats", "/generate", "/generate_stream", "/trace/setting")
"""What may follow a model's name in a path of KServe's protocol and Triton's extensions; names may have slashes."""

SCRIPT = """\
local VERBS = {{ {verbs} }}

local function hex(byte) return string.format("%%%02X", string.byte(byte)) end

local function plain(text)
  return (string.gsub(text, "%%(%x%x)", function(byte) return string.char(tonumber(byte, 16)) end))
end

local function in_path(rest)
  local name = string.match(rest, "^(.+)/versions/[^/]+")
  if name then return name end
  for _, verb in ipairs(VERBS) do
    if string.sub(rest, -#verb) == verb then return string.sub(rest, 1, -#verb - 1) end
  end
  return rest
end

local function in_message(metadata)
  for _, values in pairs(metadata:get("{grpc}") or {{}}) do
    if type(values) == "table" then return values[1] end
    return values
  end
end

local function asked(request)
  local path = request:headers():get(":path")
  local by_kserve = string.match(path, "^/v2/models/([^?]+)")
  if by_kserve then return plain(in_path(by_kserve)) end
  if string.find(path, "^/v1/models") then return plain(string.match(path, "^/v1/models/([^?]+)") or "") end
  local metadata = request:streamInfo():dynamicMetadata()
  local in_body = metadata:get("{metadata}")
  return in_body and in_body["model"] or in_message(metadata)
end

function envoy_on_request(request)
  local model = asked(request)
  if type(model) == "string" and #model > 0 and #model <= {longest} then
    request:headers():replace("{header}", "{port}/" .. string.gsub(model, "[^%w._~/:-]", hex))
    request:clearRouteCache()
    if request:metadata():get("known") then return end
    request:headers():replace("{header}", "{port}/{none}")
  end
  request:clearRouteCache()
end
"""


def manager(port: str, asked: str) -> Document:
    """What of a port's connection manager chooses tables; `asked` is the header's value to begin with."""
    return {
        "early_header_mutation_extensions": [
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": typed(
                    "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                    mutations=[
                        {
                            "append": {
                                "header": {"key": TABLE_HEADER, "value": f"{port}/{asked}"},
                                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                            }
                        }
                    ],
                ),
            }
        ],
        "scoped_routes": {
            "name": port,
            "scope_key_builder": {"fragments": [{"header_value_extractor": {"name": TABLE_HEADER, "index": 0}}]},
            "rds_config_source": ADS,
            "scoped_rds": {"scoped_rds_config_source": ADS},
        },
    }


BY_SERVICE = f"%REQ({SERVICE_HEADER})%"
"""To begin with the table of the service that a header names; without one, nothing stands there."""


def chooser(port: str, grpc: str) -> Document:
    """The filter that chooses by model; `grpc` is the namespace of what was read from a gRPC message."""
    script = SCRIPT.format(
        longest=LONGEST_NAME, header=TABLE_HEADER, port=port, none=NONE, grpc=grpc, metadata=MODEL_METADATA,
        verbs=", ".join(f'"{verb}"' for verb in VERBS),
    )  # fmt: skip
    return http_filter(CHOOSER, "lua.v3.Lua", default_source_code={"inline_string": script})


def known(routes: Sequence[Document]) -> list[Document]:
    """The routes, marked for the filter that chooses."""
    mark = {"metadata": {"filter_metadata": {CHOOSER: {"known": True}}}}
    return [route | mark for route in routes]


def scope(port: str, asked: str, table: str) -> Document:
    """Which table is meant by a value of the header: a model at the client port, elsewhere a service."""
    value = f"{port}/{quote(asked, safe='._~/:-')}"
    return typed(SCOPE, name=value, route_configuration_name=table, key={"fragments": [{"string_key": value}]})


def table_name(port: str, key: str = NONE) -> str:
    """The name of a table."""
    return f"{port}/{key}"
