"""Deriving source lines from the machine's own package sources."""

from __future__ import annotations

from holdfast_testbed.bare.apt_sources import DEFAULT_MIRROR, mirror, source_stanzas

DEBIAN = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def test_a_debian_stanza_asks_for_sources_at_the_same_mirror() -> None:
    found = source_stanzas({"debian.sources": DEBIAN})["debian.sources"]
    assert found.startswith("Types: deb-src\n")
    assert "URIs: http://mirror.example/debian" in found
    assert "#" not in found


def test_other_archives_are_left_out() -> None:
    other = "Types: deb\nURIs: https://other.example\nSuites: nodistro\nComponents: main\n"
    assert source_stanzas({"other.sources": other}) == {}
    assert source_stanzas({"both.sources": other + "\n" + DEBIAN})["both.sources"].count("Types:") == 1


def test_one_line_sources_keep_their_options() -> None:
    text = "# deb http://a bookworm main\ndeb [signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib\n"
    assert source_stanzas({"sources.list": text}) == {
        "sources.list": "deb-src [signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib\n"
    }


def test_a_stanza_that_names_both_types_asks_for_sources_only() -> None:
    both = DEBIAN.replace("Types: deb", "Types: deb deb-src")
    assert "Types: deb-src\n" in source_stanzas({"debian.sources": both})["debian.sources"]


def test_images_come_from_the_mirror_of_the_release_not_of_its_security_updates() -> None:
    security = DEBIAN.replace("mirror.example/debian", "mirror.example/security")
    security = security.replace("bookworm bookworm-updates", "bookworm-security")
    assert mirror({"debian.sources": security + "\n" + DEBIAN}) == "http://mirror.example/debian"


def test_the_mirror_is_found_in_one_line_sources_too() -> None:
    lines = "deb http://a.example/security bookworm-security main\ndeb [arch=amd64] http://b.example bookworm main\n"
    assert mirror({"sources.list": lines}) == "http://b.example"


def test_without_a_debian_source_the_mirror_is_debians_own() -> None:
    assert mirror({}) == DEFAULT_MIRROR
