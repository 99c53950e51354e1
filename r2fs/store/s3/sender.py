"""Choice of a frequent request's transport: without boto3 where that is possible, else boto3 with the same arguments.

Owns:    the rule when boto3 is asked again. What is read may be asked for twice. A write is sent again only where AWS has
         refused it for its region, which boto3 finds: an answer to a write that is not understood leaves open
         whether it was done, and that is `retry.py`'s to find out.
Threads: any.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import botocore.exceptions as boto_errors

from r2fs.store.s3.clients import Clients
from r2fs.store.s3.xml import Malformed

log = logging.getLogger(__name__)

# Methods of boto3's client.
METHODS: Mapping[str, str] = {
    "GetObject": "get_object",
    "HeadObject": "head_object",
    "ListObjectsV2": "list_objects_v2",
    "PutObject": "put_object",
    "UploadPart": "upload_part",
    "DeleteObject": "delete_object",
}
READS = frozenset({"GetObject", "HeadObject", "ListObjectsV2"})
ELSEWHERE = frozenset({301, 302, 307, 400})  # AWS's answers about a bucket of another region
ODD = 8  # answers that boto3 alone has understood, until it goes first


class Sender:
    def __init__(self, clients: Clients) -> None:
        # constant
        self._clients = clients
        # counted by any thread; one that is lost makes no difference
        self._odd = 0

    def send(self, operation: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer's fields by boto3's names."""
        requests = self._clients.requests() if self._odd < ODD and asked.get("Key") != "" else None
        if requests is None:
            return self._by_boto(operation, asked)
        try:
            return requests.send(operation, asked)
        except Malformed:
            if operation not in READS:
                raise
        except boto_errors.ClientError as error:
            if (
                not self._clients.is_aws
                or error.response["ResponseMetadata"]["HTTPStatusCode"] not in ELSEWHERE
            ):
                raise
            if asked.get("Body"):
                asked["Body"].seek(0)
        answer = self._by_boto(operation, asked)
        self._odd += 1
        if self._odd == ODD:
            log.info("requests go by boto3 from now on: it understands answers that r2fs does not")
        return answer

    def _by_boto(self, operation: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = getattr(self._clients.current, METHODS[operation])(**asked)
        return answer
