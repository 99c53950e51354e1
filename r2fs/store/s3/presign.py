"""Presigned URLs (SigV4 in the query), by boto3. Part of `store/s3/store.py`.

Never: sends a request; knows whether the object exists.
Fails: Refused for an anonymous client, BadCredentials where no key can be had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from r2fs.model.addresses import SignedUrl, UrlRequest, attachment, token_end_s
from r2fs.model.errors import Refused
from r2fs.model.keys import printable
from r2fs.model.settings import Credentials

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def presigned(
    client: S3Client, bucket: str, key: str, request: UrlRequest, credentials: Credentials
) -> SignedUrl:
    if credentials.anonymous:
        raise Refused(
            f"{printable(key)}: a mount without credentials signs no URL: mount with a key, or use --public"
        )
    params: dict[str, Any] = {"Bucket": bucket, "Key": key}
    if request.download_name is not None:
        params["ResponseContentDisposition"] = attachment(request.download_name)
    url = client.generate_presigned_url(
        "put_object" if request.put else "get_object", Params=params, ExpiresIn=request.expires_s
    )
    token = credentials.session_token
    temporary = token is not None or "X-Amz-Security-Token=" in url
    return SignedUrl(url, temporary, token_end_s(token) if token else None)
