"""Models from S3, a registry and a hub, over the real libraries: fetched, resumed after a kill, verified, served."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.debian import program
from tests.integration.engine.conftest import wait_until
from tests.integration.engine.engines import child_argument, start_vllm
from tests.integration.engine.stores import Hub, Relay, registry

from holdfast_engine.model_errors import ModelUnavailable

pytestmark = pytest.mark.integration
Launch = Callable[..., Any]
SECRET = "a-secret-that-no-log-may-hold"
SIZE = 6 << 20
WEIGHTS = random.Random(4).randbytes(SIZE)
BUCKET = "models"
PASSWORDS = "reader:$2y$05$abcdefghijklmnopqrstuud8YBp6Ahjuh1DqqHz8ds6lmYHSHJRNG\n"
"""Of SECRET, with bcrypt: the registry takes nothing else."""


@dataclass
class Place:
    """Somewhere with the tiny model as `single`, and a directory of `files` as `tree`."""

    single: str
    tree: str
    files: dict[str, bytes]
    relay: Relay
    environment: dict[str, str]


def needs(*modules: str) -> None:
    for module in modules:
        pytest.importorskip(module, reason=f"{module} is not installed: pip install 'holdfast[engine-sources,dev]'")


@pytest.fixture(scope="module")
def s3(model: Path) -> Iterator[Place]:
    needs("boto3", "moto", "flask_cors")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
    client.create_bucket(Bucket=BUCKET)
    files = {"config.json": b"{}", "weights/1.bin": WEIGHTS}
    for key, content in {"tiny.gguf": model.read_bytes(), "llama/.cache/x": b"no", "llama-2/x": b"no"}.items():
        client.put_object(Bucket=BUCKET, Key=key, Body=content)
    for key, content in files.items():
        client.put_object(Bucket=BUCKET, Key=f"llama/{key}", Body=content)
    relay = Relay(port)
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    yield Place(f"s3://{BUCKET}/tiny.gguf", f"s3://{BUCKET}/llama", files, relay, environment)
    relay.close()
    server.stop()


@pytest.fixture(scope="module")
def registry_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    needs("oras")
    found = program("docker-registry", tmp_path_factory.mktemp("package"), "docker-registry")
    if found is None:
        pytest.skip("no docker-registry: Debian's package is neither installed nor to be had")
    return found.path


@pytest.fixture(scope="module")
def oci(model: Path, registry_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    import oras.client

    folder = tmp_path_factory.mktemp("registry")
    files = {"config.json": b"{}", "1.bin": WEIGHTS}
    with registry(registry_program, folder) as port:
        for name, content in {**files, "tiny.gguf": model.read_bytes()}.items():
            (folder / name).write_bytes(content)
        client = oras.client.OrasClient(hostname=f"127.0.0.1:{port}", insecure=True)
        here = Path.cwd()
        os.chdir(folder)
        try:
            client.push(target=f"127.0.0.1:{port}/models/tiny:v1", files=["tiny.gguf"])
            client.push(target=f"127.0.0.1:{port}/models/llama:v1", files=list(files))
        finally:
            os.chdir(here)
        relay = Relay(port)
        host = f"oci://127.0.0.1:{relay.port}/models"
        yield Place(f"{host}/tiny:v1", f"{host}/llama:v1", files, relay, {})
        relay.close()


@pytest.fixture(scope="module")
def hub(model: Path) -> Iterator[Place]:
    needs("huggingface_hub")
    files = {"config.json": b"{}", "weights/1.bin": WEIGHTS}
    server = Hub("org/llama", {**files, ".gitattributes": b"no", "gguf/tiny.gguf": model.read_bytes()}, SECRET)
    relay = Relay(server.server_port)
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{relay.port}", "HF_TOKEN": SECRET}
    whole = {**files, "gguf/tiny.gguf": model.read_bytes()}
    yield Place("hf://org/llama@v1/gguf/tiny.gguf", "hf://org/llama", whole, relay, environment)
    relay.close()
    server.shutdown()


@pytest.fixture(params=["s3", "oci", "hub"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    found: Place = request.getfixturevalue(request.param)
    found.relay.rate, found.relay.cut_after, found.relay.sent = None, None, 0
    yield found
    found.relay.rate = None


def start_fetch(place: Place, source: str, cache: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "holdfast_engine", "fetch", source, "--model-cache", str(cache), *options]
    environment = {**os.environ, **place.environment}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def fetch(place: Place, source: str, cache: Path, *options: str) -> tuple[int, str, str]:
    out, log = (process := start_fetch(place, source, cache, *options)).communicate(timeout=120)
    assert SECRET not in out + log
    return process.returncode, out.strip(), log


def content(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file())
    names = {str(path.relative_to(root)): path for path in found}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".")}


def test_a_directory_is_fetched_once_and_verified(place: Place, tmp_path: Path) -> None:
    code, path, log = fetch(place, place.tree, tmp_path)

    assert (code, content(Path(path))) == (0, place.files), log
    wanted = log.rpartition("sha256 ")[2].strip()
    before = place.relay.sent
    assert fetch(place, place.tree, tmp_path)[:2] == (0, path)
    assert place.relay.sent - before < SIZE / 10
    before = place.relay.sent
    assert fetch(place, place.tree, tmp_path, "--sha256", wanted)[:2] == (0, path)
    assert place.relay.sent == before


def test_a_fetch_that_is_killed_goes_on_where_it_was(place: Place, tmp_path: Path) -> None:
    place.relay.rate = 1.5 * (1 << 20)
    process = start_fetch(place, place.tree, tmp_path)
    wait_until(lambda: place.relay.sent > SIZE / 2 or process.poll() is not None, "half of the bytes")
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    place.relay.rate, place.relay.sent = None, 0

    code, path, log = fetch(place, place.tree, tmp_path)

    assert (code, content(Path(path))) == (0, place.files), log
    whole = sum(map(len, place.files.values()))
    print(f"{place.tree}: {place.relay.sent} bytes came after the kill, of {whole}")
    assert place.relay.sent < whole - SIZE / 4


def test_a_connection_that_is_cut_is_made_anew(place: Place, tmp_path: Path) -> None:
    place.relay.cut_after = SIZE // 2

    code, path, log = fetch(place, place.tree, tmp_path)

    assert (code, content(Path(path))) == (0, place.files), log
    assert place.relay.cut_after is None
    assert place.relay.sent < sum(map(len, place.files.values())) + SIZE / 4


def test_another_content_than_was_asked_for_is_refused(place: Place, tmp_path: Path) -> None:
    code, path, log = fetch(place, place.single, tmp_path, "--sha256", "0" * 64)

    assert (code, path) == (65, "")
    assert f"ModelCorrupt: expected {'0' * 64}, found " in log
    assert f" at {place.single}; " in log


def test_what_is_not_there_is_told_in_one_line(place: Place, tmp_path: Path) -> None:
    absent = place.tree.replace("llama", "absent")

    code, path, log = fetch(place, absent, tmp_path)

    assert (code, path) == (66, "")
    assert log.splitlines()[-1].startswith(f"ModelUnavailable: {absent}"), log


def test_the_engine_serves_what_it_fetched(
    place: Place, launch: Launch, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    wanted = hashlib.sha256(model.read_bytes()).hexdigest()

    engine = launch("--sha256", wanted, "--model-cache", str(tmp_path / "cache"), model=place.single).wait_ready()

    assert engine.ask(max_tokens=2).status_code == 200


def test_vllm_is_given_what_was_fetched(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)

    engine = start_vllm(Path(place.tree), "--model", place.tree, "--model-cache", str(tmp_path / "cache"))
    try:
        fetched = Path(child_argument(engine.wait_ready(), "--model"))
    finally:
        engine.stop()

    assert tmp_path / "cache" in fetched.parents
    assert {str(path.relative_to(fetched)) for path in fetched.rglob("*") if path.is_file()} >= set(place.files)


def test_missing_credentials_and_rights_are_told(hub: Place, s3: Place, tmp_path: Path) -> None:
    code, _, log = fetch(Place("", "", {}, hub.relay, {**hub.environment, "HF_TOKEN": "wrong"}), hub.tree, tmp_path)
    assert (code, "ModelUnavailable: hf://org/llama cannot be fetched" in log) == (66, True), log
    without = {"AWS_ENDPOINT_URL": s3.environment["AWS_ENDPOINT_URL"], "AWS_EC2_METADATA_DISABLED": "true"}
    code, _, log = fetch(Place("", "", {}, s3.relay, without), s3.tree, tmp_path)
    assert (code, "no credentials; set AWS_ACCESS_KEY_ID" in log) == (66, True), log


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(
    s3: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    from holdfast_engine.origins.s3 import S3Origin

    client = boto3.client("s3")
    client.put_object(Bucket=BUCKET, Key="changing", Body=b"before")
    origin = S3Origin(BUCKET, "changing")
    before = origin.listing()
    client.put_object(Bucket=BUCKET, Key="changing", Body=b"after.")

    with pytest.raises(ModelUnavailable, match="was changed while it was read"):
        origin.fetch(before.files[0], tmp_path / "m", lambda _: None)
    assert origin.listing().version != before.version


def test_a_registry_lets_in_who_has_dockers_credentials(registry_program: str, tmp_path: Path) -> None:
    with registry(registry_program, tmp_path, PASSWORDS) as port:
        home = tmp_path / "docker"
        home.mkdir()
        pair = base64.b64encode(f"reader:{SECRET}".encode()).decode()
        (home / "config.json").write_text(json.dumps({"auths": {f"127.0.0.1:{port}": {"auth": pair}}}))
        (tmp_path / "model.gguf").write_bytes(b"gguf")
        source = f"127.0.0.1:{port}/private/model:v1"
        push = "import oras.client, sys; c = oras.client.OrasClient(insecure=True, auth_backend='basic'); c.auth."
        push += "load_configs(c.get_container(sys.argv[1]), [sys.argv[2]]); c.push(sys.argv[1], files=['model.gguf'])"
        command = [sys.executable, "-c", push, source, str(home / "config.json")]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

        place = Place("", "", {}, Relay(port), {"DOCKER_CONFIG": str(home)})
        code, path, log = fetch(place, f"oci://{source}", tmp_path / "cache")
        stranger = Place("", "", {}, Relay(port), {"DOCKER_CONFIG": str(tmp_path / "nobody")})
        refused, _, words = fetch(stranger, f"oci://{source}", tmp_path / "other")

    assert (code, Path(path).read_bytes()) == (0, b"gguf"), log
    assert (refused, words.count("\n")) == (66, 1), words
    assert "401" in words


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_told_with_what_is_free_and_what_is_needed(s3: Place, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=True)
    try:
        code, _, log = fetch(s3, s3.tree, small)
    finally:
        subprocess.run(["umount", str(small)], check=True)

    assert code == 66
    assert f"{SIZE + 2} more are needed" in log
    assert str(small) in log
