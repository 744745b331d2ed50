"""The ledger's part of the client port: each request gets an id, its answer is searched for the tokens that it tells,
and when it has ended Envoy writes one line of JSON.

The answer passes a script chunk by chunk and waits for nothing: Envoy's filters that read JSON hold an answer back
until it is whole, and refuse it beyond the buffers' size. The script looks for the names of OpenAI's `usage` with their
quotes, which stand escaped in whatever text a model writes; the last numbers count.
"""

from __future__ import annotations

from holdfast.api.names import REVISION_HEADER, SERVICE_HEADER, TENANT_HEADER
from holdfast_gateway.options import Options
from holdfast_gateway.render.values import (
    MODEL_METADATA,
    RECORD_HEADER,
    REGION_HEADER,
    Document,
    header,
    http_filter,
    typed,
)

USAGE_METADATA = "holdfast.usage"
"""Namespace of the dynamic metadata that holds what an answer tells: `prompt_tokens`, `completion_tokens`,
`total_tokens`, as numbers, and `error` of a stream that ended with one."""
SPOOL_FILE = "envoy.jsonl"

CONTENT_METADATA = "holdfast.content"
"""Namespace of the dynamic metadata that holds the beginnings of `request` and `response`, where they are recorded."""

SCRIPT = f"""
local NAMES = {{"prompt_tokens", "completion_tokens", "total_tokens"}}
local OVERLAP = 64

-- Not kept from chunk to chunk: Envoy takes its objects back meanwhile.
local function note(handle, name, value)
  handle:streamInfo():dynamicMetadata():set("{USAGE_METADATA}", name, value)
end

function envoy_on_response(handle)
  if handle:headers():get(":status") ~= "200" then return end
  local keep = keeper and keeper()
  local stream = (handle:headers():get("content-type") or ""):find("text/event-stream", 1, true)
  local rest = ""
  for chunk in handle:bodyChunks() do
    local bytes = chunk:getBytes(0, chunk:length())
    if keep then keep(handle, bytes) end
    local text = rest .. bytes
    if text:find('_tokens"', 1, true) then
      for _, name in ipairs(NAMES) do
        for count in text:gmatch('"' .. name .. '"%s*:%s*(%d+)%s*[,}}]') do
          note(handle, name, tonumber(count))
        end
      end
    end
    if stream and text:find('data: {{"error"', 1, true) then note(handle, "error", true) end
    rest = text:sub(-OVERLAP)
  end
  if keep then keep(handle, nil) end
end
"""
CONTENT_SCRIPT = """
local function beginning(text)
  if #text <= {most} then return text end
  -- Not in the middle of a character.
  return (text:sub(1, {most}):gsub("[\\192-\\255][\\128-\\191]*$", ""))
end

local function content(handle, name, text)
  handle:streamInfo():dynamicMetadata():set("{namespace}", name, beginning(text))
end

function envoy_on_request(handle)
  local kind = handle:headers():get("content-type") or ""
  -- Of gRPC nothing may be held back until it is whole.
  if kind:find("application/grpc", 1, true) == 1 then return end
  local body = handle:body()
  if body then content(handle, "request", body:getBytes(0, math.min(body:length(), {most} + 1))) end
end

-- Noted whenever there is twice as much, so that what is cut off is not lost and what is long not noted too often.
local function keeper()
  local parts, length, noted = {{}}, 0, 0
  return function(handle, bytes)
    if bytes and length <= {most} then
      parts[#parts + 1] = bytes
      length = length + #bytes
    end
    if length > 2 * noted or (not bytes and length > noted) then
      content(handle, "response", table.concat(parts))
      noted = length
    end
  end
end
"""
FIELDS = {
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "error": f"%DYNAMIC_METADATA({USAGE_METADATA}:error)%",
    "flags": "%RESPONSE_FLAGS%",
    "id": f"%REQ({RECORD_HEADER})%",
    "latency_ms": "%DURATION%",
    "method": "%REQ(:METHOD)%",
    "model": f"%DYNAMIC_METADATA({MODEL_METADATA}:model):256%",
    "path": "%PATH(NQ):256%",
    "region": f"%RESP({REGION_HEADER})%",
    "request_id": "%REQ(X-REQUEST-ID):256%",
    "revision": f"%RESP({REVISION_HEADER})%",
    "status": "%RESPONSE_CODE%",
    "stream": f"%DYNAMIC_METADATA({MODEL_METADATA}:stream)%",
    "tenant": f"%REQ({TENANT_HEADER})%",
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "tokens_in": f"%DYNAMIC_METADATA({USAGE_METADATA}:prompt_tokens)%",
    "tokens_out": f"%DYNAMIC_METADATA({USAGE_METADATA}:completion_tokens)%",
    "ttft_ms": "%COMMON_DURATION(DS_RX_BEG:US_RX_BODY_BEG:ms)%",
    "upstream": "%UPSTREAM_HOST%",
}
"""What Envoy writes of a request, in the order in which it does; `holdfast_gateway.ledger.record` reads it."""


def number(options: Options) -> list[Document]:
    """Gives each request an id that no client can choose. Behind what answers health checks and preflights, which
    therefore have none; before the door, whose refusals count."""
    if not options.ledger:
        return []
    changes = [
        # Of a request that the door refuses this would be the client's word.
        {"remove": SERVICE_HEADER},
        {"append": header(RECORD_HEADER, "%UNIQUE_ID%")},
    ]
    return [http_filter("record", "header_mutation.v3.HeaderMutation", mutations={"request_mutations": changes})]


def read_usage(options: Options) -> list[Document]:
    """Notes what an answer tells of its tokens; if told to, also how request and answer begin."""
    if not options.ledger:
        return []
    script = SCRIPT
    if options.ledger_content:
        script = CONTENT_SCRIPT.format(most=options.ledger_content, namespace=CONTENT_METADATA) + SCRIPT
    return [http_filter("usage", "lua.v3.Lua", default_source_code={"inline_string": script})]


def spool(options: Options) -> list[Document]:
    """The access log that is the spool: one line for each request with an id."""
    if not options.ledger:
        return []
    content = {name: f"%DYNAMIC_METADATA({CONTENT_METADATA}:{name})%" for name in ("request", "response")}
    numbered = {"header_filter": {"header": {"name": RECORD_HEADER, "present_match": True}}}
    log = typed(
        "extensions.access_loggers.file.v3.FileAccessLog",
        path=f"{options.ledger}/{SPOOL_FILE}",
        log_format={"json_format": FIELDS | (content if options.ledger_content else {})},
    )
    return [{"name": "envoy.access_loggers.file", "filter": numbered, "typed_config": log}]
