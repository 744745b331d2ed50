"""Makes a region's certificate authority, certificates, keys and tokens with the openssl command.

Every region has an authority of its own: no region's key opens another. Files are kept over restarts.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from holdfast_testbed.commands import run
from holdfast_testbed.state import write_atomically

from .components import SYSTEM_TOKENS
from .configs import tokens_csv
from .site import Site

DAYS = "3650"


def ensure_credentials(site: Site) -> tuple[dict[str, str], bytes]:
    """Make what is missing; return the tokens by kubeconfig name, and the authority's certificate."""
    pki = site.pki
    pki.mkdir(parents=True, exist_ok=True)
    pki.chmod(0o700)
    marker = pki / "tokens.csv"  # written last: its presence says that all the rest is there
    if not marker.exists():
        _authority(pki)
        _signed(pki, "apiserver", "/CN=kube-apiserver", _server_extensions(site))
        _signed(pki, "kubelet-client", "/O=system:masters/CN=kube-apiserver", "extendedKeyUsage=clientAuth\n")
        _key(pki / "service-account.key")
        run(
            [
                "openssl",
                "ec",
                "-in",
                f"{pki}/service-account.key",
                "-pubout",
                "-out",
                f"{pki}/service-account.pub",
            ]
        )
        write_atomically(marker, tokens_csv(site, {name: secrets.token_hex(16) for name in SYSTEM_TOKENS}))
    values = [line.split(",", 1)[0] for line in marker.read_text().splitlines()]
    return dict(zip(SYSTEM_TOKENS, values, strict=True)), (pki / "ca.crt").read_bytes()


def _server_extensions(site: Site) -> str:
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    addresses = [str(site.addresses.address), str(site.addresses.kubernetes_service), "127.0.0.1"]
    alternatives = [f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses]
    return f"extendedKeyUsage=serverAuth\nsubjectAltName={','.join(alternatives)}\n"


def _authority(pki: Path) -> None:
    _key(pki / "ca.key")
    subject = "/CN=holdfast-testbed"
    # fmt: off
    run(["openssl", "req", "-x509", "-new", "-key", f"{pki}/ca.key", "-days", DAYS, "-subj", subject,
         "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", f"{pki}/ca.crt"])
    # fmt: on


def _signed(pki: Path, name: str, subject: str, extensions: str) -> None:
    _key(pki / f"{name}.key")
    wanted = pki / f"{name}.ext"
    wanted.write_text(extensions)
    request = pki / f"{name}.csr"
    run(["openssl", "req", "-new", "-key", f"{pki}/{name}.key", "-subj", subject, "-out", str(request)])
    # fmt: off
    run(["openssl", "x509", "-req", "-in", str(request), "-CA", f"{pki}/ca.crt", "-CAkey", f"{pki}/ca.key",
         "-CAcreateserial", "-days", DAYS, "-extfile", str(wanted), "-out", f"{pki}/{name}.crt"])
    # fmt: on
    request.unlink()
    wanted.unlink()


def _key(path: Path) -> None:
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(path)])
    path.chmod(0o600)
