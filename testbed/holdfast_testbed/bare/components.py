"""The command line of every component of a region. Pure.

Flags are chosen for many clusters on few cores: no profiling, no leader election among one, few workers, and only the
controllers that workloads need. etcd listens inside the namespace's loopback, so it needs no TLS; everything that is
reachable from outside has it.
"""

from __future__ import annotations

from enum import StrEnum

from .site import Site

SYSTEM_TOKENS = {
    # name of the kubeconfig: (user, groups)
    "admin": ("holdfast-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", "system:masters"),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
    "kubelet": ("system:node:{node}", "system:nodes"),
}

CONTROLLERS = (
    "clusterrole-aggregation,cronjob,daemonset,deployment,disruption,endpoint,endpointslice,garbagecollector,job,"
    "namespace,nodelifecycle,podgc,replicaset,resourcequota,root-ca-cert-publisher,serviceaccount,"
    "serviceaccount-token,statefulset"
)


class Component(StrEnum):
    """The long-running processes of a region, in the order in which they are started."""

    HOLDER = "mounts"
    ETCD = "etcd"
    API_SERVER = "kube-apiserver"
    CONTAINERD = "containerd"
    CONTROLLERS = "kube-controller-manager"
    SCHEDULER = "kube-scheduler"
    KUBELET = "kubelet"
    PROXY = "kube-proxy"


CONTROL_PLANE = (Component.ETCD, Component.API_SERVER, Component.CONTROLLERS)
ALL = tuple(Component)
# These see the region's own mounts; the others need its network only.
ON_THE_NODE = frozenset({Component.CONTAINERD, Component.KUBELET, Component.PROXY})


def expected(control_plane_only: bool) -> tuple[Component, ...]:
    """The components that a region should run."""
    return CONTROL_PLANE if control_plane_only else ALL


def command(component: Component, site: Site) -> list[str]:
    """The component's command line, without the part that enters the region's namespaces."""
    match component:
        case Component.HOLDER:
            return ["unshare", "--mount", "--propagation", "private", "sh", str(site.config / "mounts.sh")]
        case Component.ETCD:
            return _etcd(site)
        case Component.API_SERVER:
            return _api_server(site)
        case Component.CONTROLLERS:
            return _controller_manager(site)
        case Component.SCHEDULER:
            return _scheduler(site)
        case Component.CONTAINERD:
            return ["containerd", "--config", str(site.config / "containerd.toml"), "--log-level=warn"]
        case Component.KUBELET:
            return _kubelet(site)
        case Component.PROXY:
            return [f"{site.binaries}/kube-proxy", f"--config={site.config}/kube-proxy.yaml"]


def enter_network(site: Site) -> list[str]:
    """Prefix that runs a command in the region's network.

    Not `ip netns exec`: that one remounts /sys and hides the cgroup mounts from the kubelet.
    """
    return ["nsenter", f"--net={site.namespace_path}"]


def enter_node(holder: int) -> list[str]:
    """Prefix that runs a command in the network and mounts of the region whose holder process this is."""
    return ["nsenter", f"--target={holder}", "--mount", "--net"]


def _etcd(site: Site) -> list[str]:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        "etcd",
        "--name=default",
        f"--data-dir={site.folder}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--snapshot-count=10000",
        "--logger=zap",
        "--log-level=warn",
    ]


def _api_server(site: Site) -> list[str]:
    pki, address = site.pki, site.addresses.address
    return [
        f"{site.binaries}/kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        "--secure-port=6443",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--token-auth-file={pki}/tokens.csv",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/service-account.pub",
        f"--service-account-signing-key-file={pki}/service-account.key",
        f"--service-cluster-ip-range={site.addresses.services}",
        f"--kubelet-client-certificate={pki}/kubelet-client.crt",
        f"--kubelet-client-key={pki}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def _controller_manager(site: Site) -> list[str]:
    return [
        f"{site.binaries}/kube-controller-manager",
        f"--kubeconfig={site.config}/kube-controller-manager.kubeconfig",
        "--leader-elect=false",
        f"--controllers={CONTROLLERS}",
        "--allocate-node-cidrs=false",
        f"--service-account-private-key-file={site.pki}/service-account.key",
        f"--root-ca-file={site.pki}/ca.crt",
        "--node-monitor-period=2s",
        "--node-monitor-grace-period=20s",
        "--concurrent-gc-syncs=4",
        "--kube-api-qps=50",
        "--kube-api-burst=100",
        "--bind-address=127.0.0.1",
        "--port=0",
        "--profiling=false",
    ]


def _scheduler(site: Site) -> list[str]:
    return [
        f"{site.binaries}/kube-scheduler",
        f"--kubeconfig={site.config}/kube-scheduler.kubeconfig",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--port=0",
        "--profiling=false",
    ]


def _kubelet(site: Site) -> list[str]:
    labels = f"topology.kubernetes.io/region={site.name},topology.kubernetes.io/zone={site.zone}"
    return [
        f"{site.binaries}/kubelet",
        f"--config={site.config}/kubelet.yaml",
        f"--kubeconfig={site.config}/kubelet.kubeconfig",
        f"--hostname-override={site.node}",
        f"--node-ip={site.addresses.address}",
        f"--node-labels={labels}",
        "--container-runtime=remote",
        f"--container-runtime-endpoint=unix://{site.containerd_socket}",
        "--root-dir=/var/lib/kubelet",
        f"--cert-dir={site.folder}/kubelet-pki",
        "--housekeeping-interval=30s",
    ]
