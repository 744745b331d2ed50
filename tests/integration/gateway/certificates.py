"""Certificates for tests, made by the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path

EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]


def authority(folder: Path) -> None:
    """Makes `ca.crt` and `ca.key`."""
    folder.mkdir(parents=True, exist_ok=True)
    openssl(folder, "req", "-x509", *EC, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority")


def certificate(folder: Path, name: str = "DNS:gateway") -> None:
    """Makes `tls.crt` and `tls.key`, signed by the folder's authority, for a name or an address (`IP:10.0.0.1`)."""
    request = [*EC[:-2], "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=gateway"]
    openssl(folder, "req", *request, "-addext", f"subjectAltName={name}")
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-copy_extensions", "copy"]
    openssl(folder, "x509", "-req", "-in", "tls.csr", *signed, "-out", "tls.crt")


def mounted(folder: Path, number: int) -> None:
    """A new authority and certificate, put in place as the kubelet does: a link is moved to a new folder."""
    place = folder / f"..{number}"
    authority(place)
    certificate(place)
    fresh = folder / "..data_tmp"
    fresh.symlink_to(place.name)
    fresh.replace(folder / "..data")
    for name in ("ca.crt", "tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def openssl(folder: Path, *arguments: str) -> None:
    """Runs openssl in a folder. Raises subprocess.CalledProcessError."""
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
