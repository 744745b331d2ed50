"""Reads where this machine's packages come from, so that sources and images come from the same mirror. Pure but for
`system_sources`; nothing here changes the machine's configuration.
"""

from __future__ import annotations

import re
from pathlib import Path

SUITE = "bookworm"
DEFAULT_MIRROR = "http://deb.debian.org/debian"


def system_sources() -> dict[str, str]:
    """The texts of the machine's package source files, by file name."""
    found = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    return {path.name: path.read_text() for path in found if path.suffix in {".list", ".sources"} and path.exists()}


def source_stanzas(files: dict[str, str]) -> dict[str, str]:
    """From package source files by name, files in which the same Debian archives are asked for sources."""
    found: dict[str, str] = {}
    for name, text in files.items():
        if name.endswith(".sources"):
            stanzas = [_as_source_stanza(stanza) for stanza in re.split(r"\n\s*\n", text)]
            kept = "\n\n".join(stanza for stanza in stanzas if stanza)
        else:
            kept = "\n".join(line for line in map(_as_source_line, text.splitlines()) if line)
        if kept:
            found[name] = kept + "\n"
    return found


def mirror(files: dict[str, str]) -> str:
    """The Debian mirror that the machine uses for the release itself, or Debian's own."""
    for text in source_stanzas(files).values():
        for stanza in text.split("\n\n"):
            if re.search(rf"^Suites:.*\b{SUITE}(\s|$)", stanza, re.MULTILINE) and (
                uri := re.search(r"^URIs:\s*(\S+)", stanza, re.MULTILINE)
            ):
                return uri[1]
        line = re.search(rf"^deb-src\s+(?:\[[^\]]*\]\s+)?(\S+)\s+{SUITE}\s", text, re.MULTILINE)
        if line:
            return line[1]
    return DEFAULT_MIRROR


def _as_source_stanza(stanza: str) -> str:
    lines = [line for line in stanza.splitlines() if line.strip() and not line.startswith("#")]
    text = "\n".join(lines)
    types = re.search(r"^Types:.*\bdeb\b", text, re.MULTILINE)
    main = re.search(r"^Components:.*\bmain\b", text, re.MULTILINE)
    suite = re.search(rf"^Suites:.*\b{SUITE}", text, re.MULTILINE)
    if not (types and main and suite):
        return ""
    return re.sub(r"^Types:.*$", "Types: deb-src", text, flags=re.MULTILINE)


def _as_source_line(line: str) -> str:
    matched = re.match(rf"deb(\s+(?:\[[^\]]*\]\s+)?\S+\s+{SUITE}\S*\s.*\bmain\b.*)$", line.strip())
    return f"deb-src{matched[1]}" if matched else ""
