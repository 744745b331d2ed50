"""Every configuration file of a region, as text. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import yaml

from .components import SYSTEM_TOKENS
from .site import Site

PAUSE_IMAGE = "docker.io/holdfast/pause:1"
CNI_BINARIES = "/usr/lib/cni"

# The kubelet sets these for the whole machine unless they hold its values already; it gets to see private copies.
KUBELET_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def region_files(site: Site, tokens: Mapping[str, str], authority: bytes) -> dict[str, str]:
    """All configuration files of a region by their name under its `config` folder."""
    files = {
        "containerd.toml": containerd(site),
        "cni/10-holdfast.conflist": cni(site),
        "kubelet.yaml": yaml.safe_dump(kubelet(site), sort_keys=False),
        "kube-proxy.yaml": yaml.safe_dump(kube_proxy(site), sort_keys=False),
        "mounts.sh": mounts(site),
        # Nothing can be reached beyond the test range: a pod's look-up should fail at once, not time out.
        "resolv.conf": "options timeout:1 attempts:1\n",
    }
    for user, token in tokens.items():
        if user != "admin":
            files[f"{user}.kubeconfig"] = kubeconfig(site, user, token, authority)
    for key, value in KUBELET_SYSCTLS.items():
        files[f"sysctl/{key}"] = value + "\n"
    return files


def kubeconfig(site: Site, user: str, token: str, authority: bytes) -> str:
    """A kubeconfig for one user of a region."""
    cluster = {
        "server": site.addresses.server,
        "certificate-authority-data": base64.b64encode(authority).decode(),
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": site.name, "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": site.name, "context": {"cluster": site.name, "user": user}}],
        "current-context": site.name,
    }
    return yaml.safe_dump(document, sort_keys=False)


def tokens_csv(site: Site, tokens: Mapping[str, str]) -> str:
    """The API server's static tokens: token, user, uid, groups."""
    lines = []
    for name, token in tokens.items():
        user, groups = SYSTEM_TOKENS[name]
        user = user.format(node=site.node)
        lines.append(f'{token},{user},{user},"{groups}"' if groups else f"{token},{user},{user}")
    return "\n".join(lines) + "\n"


def containerd(site: Site) -> str:
    """containerd's configuration."""
    unused = ["aufs", "btrfs", "devmapper", "zfs"]
    disabled = [f"io.containerd.snapshotter.v1.{name}" for name in unused]
    disabled += ["io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE every sandbox fails if containerd lowers the score.
    return f"""version = 2
root = "{site.folder}/containerd"
state = "{site.run}/containerd"
disabled_plugins = {json.dumps(disabled)}

[grpc]
  address = "{site.containerd_socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_BINARIES}"
  conf_dir = "{site.config}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""


def cni(site: Site) -> str:
    """The pod network: a bridge in the region's namespace, and host ports on the region's address."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(site.addresses.pods)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    document = {"cniVersion": "0.4.0", "name": "holdfast", "plugins": [bridge, portmap]}
    return json.dumps(document, indent=2) + "\n"


def kubelet(site: Site) -> dict[str, Any]:
    """The kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(site.addresses.address),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": f"{site.pki}/ca.crt"},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": site.cgroup,
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1Mi", "imagefs.available": "1Mi"},
        "imageGCHighThresholdPercent": 100,
        "resolvConf": f"{site.config}/resolv.conf",
        "serializeImagePulls": False,
        "enableControllerAttachDetach": False,
        "readOnlyPort": 0,
        # A new node is Ready at the second look; looks are cheap, only changes are reported.
        "nodeStatusUpdateFrequency": "2s",
        "nodeStatusReportFrequency": "1m",
        "eventRecordQPS": 50,
        "kubeAPIQPS": 50,
        "kubeAPIBurst": 100,
        "volumePluginDir": f"{site.folder}/volume-plugins",
        # Without device plugins a restarted kubelet keeps the extended resources (GPUs) its node has.
        "featureGates": {"DevicePlugins": False},
    }


def kube_proxy(site: Site) -> dict[str, Any]:
    """kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": f"{site.config}/kube-proxy.kubeconfig"},
        "hostnameOverride": site.node,
        "clusterCIDR": str(site.addresses.pods),
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        # The limits of connection tracking belong to the machine, not to a region.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }


def bind_mounts(site: Site) -> dict[str, str]:
    """Folders with a fixed path that each region must have for itself: path → its own folder."""
    return {
        "/var/lib/kubelet": f"{site.folder}/kubelet",
        "/var/log/pods": f"{site.folder}/pod-logs",
        "/var/log/containers": f"{site.folder}/container-logs",
        "/var/lib/cni": f"{site.run}/cni",
        "/run/netns": f"{site.run}/netns",
    }


def mounts(site: Site) -> str:
    """The script of the process that holds the region's mounts.

    Mounts are made shared inside, so that what the kubelet mounts for a pod is seen by containerd.
    """
    lines = ["set -eu", "mount --make-rshared /"]
    for path, own in bind_mounts(site).items():
        lines += [f"mkdir -p '{path}' '{own}'", f"mount --bind '{own}' '{path}'"]
    for key in KUBELET_SYSCTLS:
        lines.append(f"[ ! -e /proc/sys/{key} ] || mount --bind '{site.config}/sysctl/{key}' /proc/sys/{key}")
    lines += [f"touch '{site.run}/mounted'", "exec sleep infinity"]
    return "\n".join(lines) + "\n"
