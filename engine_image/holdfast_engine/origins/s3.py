"""Models in S3 and what speaks its protocol, through boto3.

Credentials, region and endpoint are found as boto3 finds them: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, a web identity
and so on. A path that names an object is that file; else it is the directory of all objects below it. Every read
carries the ETag that was listed, so that an object replaced meanwhile is noticed rather than mixed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
from botocore.exceptions import ConnectionError as BotoConnectionError

from holdfast_engine.fetch import Body, Listing, RemoteFile, download, relative
from holdfast_engine.model_errors import Interrupted, ModelUnavailable, plain

BLOCK = 1 << 20
CONNECT_SECONDS = 10
READ_SECONDS = 60
_CHANGED = ("PreconditionFailed", "412")
_ABSENT = ("404", "NoSuchKey", "NotFound")


def open_origin(rest: str) -> S3Origin:
    bucket, _, prefix = rest.partition("/")
    return S3Origin(bucket, prefix)


class S3Origin:
    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket, self._prefix = bucket, prefix
        own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self._client: Any = boto3.session.Session().client(
            "s3",
            config=Config(
                retries={"mode": "standard", "max_attempts": 5},
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                # Servers other than Amazon's seldom have a name for each bucket.
                s3={"addressing_style": "path"} if own_endpoint else None,
            ),
        )
        self._etags: dict[str, str] = {}

    def listing(self) -> Listing:
        try:
            single = self._object()
            found = [single] if single else list(self._below())
        except (ClientError, BotoCoreError) as error:
            raise self._unavailable(error) from error
        files = []
        for key, size, etag in found:
            path = relative(key.rpartition("/")[2] if single else key[len(self._folder) :])
            if path is not None:
                self._etags[key] = etag
                files.append(RemoteFile(path, size, key))
        named = "\n".join(sorted(f"{key} {size} {etag}" for key, size, etag in found))
        return Listing(
            hashlib.sha256(named.encode()).hexdigest(), tuple(files), model=files[0].path if single and files else ""
        )

    def fetch(self, file: RemoteFile, target: Path, got: Callable[[int], None]) -> None:
        download(file, target, lambda offset: self._read(file, offset), got)

    @property
    def _folder(self) -> str:
        return f"{self._prefix.rstrip('/')}/" if self._prefix.strip("/") else ""

    def _object(self) -> tuple[str, int, str] | None:
        if not self._folder or self._prefix.endswith("/"):
            return None
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=self._prefix)
        except ClientError as error:
            # Without the right to list, S3 says 403 of what is not there: the listing that follows gives the reason.
            if error.response["Error"]["Code"] in (*_ABSENT, "403"):
                return None
            raise
        return self._prefix, int(head["ContentLength"]), str(head["ETag"])

    def _below(self) -> Iterator[tuple[str, int, str]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._folder)
        for page in pages:
            for each in page.get("Contents", ()):
                if not each["Key"].endswith("/"):
                    yield each["Key"], int(each["Size"]), str(each["ETag"])

    def _read(self, file: RemoteFile, offset: int) -> Body:
        wanted = {"Bucket": self._bucket, "Key": file.key, "IfMatch": self._etags[file.key]}
        if offset:
            wanted["Range"] = f"bytes={offset}-"
        try:
            answer = self._client.get_object(**wanted)
        except (BotoConnectionError, HTTPClientError) as error:
            raise Interrupted(plain(error)) from error
        except (ClientError, BotoCoreError) as error:
            raise self._unavailable(error) from error
        start = offset if answer["ResponseMetadata"]["HTTPStatusCode"] == 206 else 0
        return Body(start, _blocks(answer["Body"]))

    def _unavailable(self, error: Exception) -> ModelUnavailable:
        where = f"s3://{self._bucket}/{self._prefix}"
        if isinstance(error, NoCredentialsError):
            return ModelUnavailable(f"{where}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        if isinstance(error, ClientError) and error.response["Error"]["Code"] in _CHANGED:
            return ModelUnavailable(f"{where} was changed while it was read; starting again fetches the new version")
        return ModelUnavailable(f"{where} cannot be fetched: {plain(error)}")


def _blocks(body: Any) -> Iterator[bytes]:
    try:
        while block := body.read(BLOCK):
            yield block
    except (BotoCoreError, OSError) as error:
        raise Interrupted(plain(error)) from error
    finally:
        body.close()
