"""S3 services that are known by their endpoint's host, and their limits, which are not found out by failed requests.

Owns:    the table. A server of any other name (MinIO, SeaweedFS, Ceph) has the defaults of `Limits`: an S3 server that
         takes conditions on PUT, while one on Complete or a copy's destination counts only where it is known to.
Never:   sends a request.

Sources. R2: its documentation, "Conditional operations" and "Extensions". AWS: S3 User Guide, "Conditional writes"
(PutObject and CompleteMultipartUpload), and no least time between two writes of a key. Google: "Request preconditions"
(If-Match is for requests that retrieve data; writes have generations), "Migrating from Amazon S3" (no multi-object
delete; boto3's issue 2293), "XML API multipart uploads" (no preconditions; no copy of a part is named there). DigitalOcean: "Spaces S3 Compatibility" (the
features without conditional writes among them). Where a source is silent, the service counts as one that lacks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from r2fs.model.ports import Limits
from r2fs.model.settings.loading import R2_DOMAIN


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    limits: Limits
    has_sts: bool = True  # temporary credentials of a security token service; R2's are signed by their user


_ANY = Service("S3", Limits())
AWS = Service("Amazon S3", Limits(conditional_complete=True, key_write_interval_s=0.0))
BY_HOST: dict[str, Service] = {
    R2_DOMAIN: Service("Cloudflare R2", Limits(r2_copies=True, conditional_complete=True), has_sts=False),
    "amazonaws.com": AWS,
    "amazonaws.com.cn": AWS,
    "storage.googleapis.com": Service(
        "Google Cloud Storage",
        Limits(conditional_put=False, part_copies=False, delete_batch=1),
        has_sts=False,
    ),
    "digitaloceanspaces.com": Service("DigitalOcean Spaces", Limits(conditional_put=False), has_sts=False),
}


def service_of(endpoint_url: str | None) -> Service:
    """The service at an endpoint; Amazon's without one."""
    if endpoint_url is None:
        return AWS
    host = (urlsplit(endpoint_url).hostname or "").rstrip(".")
    for suffix, service in BY_HOST.items():
        if host == suffix or host.endswith("." + suffix):
            return service
    return _ANY
