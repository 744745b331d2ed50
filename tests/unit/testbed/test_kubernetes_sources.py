"""Deriving source lines from the machine's own package sources."""

from __future__ import annotations

from holdfast_testbed.bare.kubernetes import source_stanzas

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
