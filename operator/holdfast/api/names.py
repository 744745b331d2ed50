"""Names shared by everyone who touches a Holdfast object: the API group, labels, ports, file keys."""

from __future__ import annotations

GROUP = "serving.holdfast.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

MANAGER = "holdfast"
"""Field manager of server-side apply, and value of `app.kubernetes.io/managed-by`."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
COMPONENT_LABEL = "app.kubernetes.io/component"
SERVICE_LABEL = f"{GROUP}/service"
REVISION_LABEL = f"{GROUP}/revision"
REGION_LABEL = f"{GROUP}/region"

TENANT_LABEL = f"{GROUP}/tenant"
"""On a Secret in the gateway's namespace: the tenant whose API keys and limits it holds."""

ISSUER_LABEL = f"{GROUP}/jwt-issuer"
"""On a Secret there: a name for the issuer of JSON Web Tokens whose public keys it holds."""

FINALIZER = f"{GROUP}/replication"
"""On an `LLMService` that other regions may copy: it goes only after its deletion was noted for them."""

STAMP_ANNOTATION = f"{GROUP}/edit"
"""What replication knows of a copy of an `LLMService`: a `Stamp` as JSON."""

DRAIN_ANNOTATION = f"{GROUP}/drain"
"""On a `Region`: `true`, or the moment (RFC 3339) when somebody asked for its traffic to be moved away."""

UNDRAIN_ANNOTATION = f"{GROUP}/undrain"
"""On a `Region`: the moment (RFC 3339) when somebody gave its traffic back; the later of the two holds."""

OVERRIDE_ANNOTATION = f"{GROUP}/drain-override"
"""On a `Region`: `true` lets a drain exceed `maxDrainedFraction`; never takes the last region."""

LEASE = "holdfast-leader"
"""Name of the Lease that a leader holds in a majority of the regions' API servers."""

OBSERVER_LEASE = "holdfast-observer"
"""Name of the Lease by which an observer shows that it lives, in its own region's API server."""

NAMESPACE = "holdfast-system"
"""Namespace of the operator, of the leader's Lease and of the peers' kubeconfig Secrets."""

EPOCH_ANNOTATION = f"{GROUP}/epoch"
"""On the Lease: the epoch that its region is sealed with; a plan of a smaller one is refused."""

APPLIED_HASH_ANNOTATION = f"{GROUP}/applied-hash"
"""Digest of the manifest that was last applied; differs exactly when the builder's output changed."""

ENGINE_COMPONENT = "engine"
ROUTE_COMPONENT = "route"

ENGINE_PORT = 8000
"""TCP port of every engine's HTTP server inside its Pod."""
ENGINE_GRPC_PORT = 8001
"""TCP port of every engine's gRPC server (KServe's protocol) inside its Pod."""

GATEWAY_PORT = 8080
"""TCP port where a gateway answers clients."""

PEER_PORT = 8081
"""TCP port where a gateway answers other regions' gateways and edges, from local engines only."""

SERVICE_HEADER = "x-holdfast-service"
"""Request header by which a peer port knows the service (`namespace/name`)."""

PROBE_HEADER = "x-holdfast-probe"
"""Request header that marks an observer's synthetic request."""

TENANT_HEADER = "x-holdfast-tenant"
"""Request header by which a gateway names the tenant that asks; nobody else can set it."""

PRIORITY_HEADER = "x-holdfast-priority"
"""Request header with the class of a request: high, normal or low."""

REVISION_HEADER = "x-holdfast-revision"
"""On an answer: the revision whose engine gave it. On a relay's request: the only revision that may answer it."""

PREFIX_HEADER = "x-holdfast-prefix"
"""Request header by which gateways tell each other how a prompt begins: a hash, never text."""

TIMEOUT_HEADER = "x-holdfast-timeout"
"""Request header: seconds after which a request that no engine has begun is of no more use."""

ROUTE_KEY = "route.json"
"""Key of the ConfigMap entry that holds a service's `Route`."""
