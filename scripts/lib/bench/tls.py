"""A certificate for one run: of an authority that nobody else trusts, for 127.0.0.1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import MissingProgram


@dataclass(frozen=True)
class Certificate:
    authority: Path  # what clients are told to trust
    chain: Path
    key: Path

    @property
    def server_options(self) -> list[str]:
        """Of `weed mini`."""
        return [f"-s3.cert.file={self.chain}", f"-s3.key.file={self.key}"]


def make_certificate(directory: Path) -> Certificate:
    """In `directory`, as PEM files."""
    try:
        import trustme
    except ImportError:
        raise MissingProgram(
            "the Python package trustme is not installed: scripts/bench installs it"
        ) from None
    directory.mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    made = Certificate(directory / "authority.pem", directory / "chain.pem", directory / "key.pem")
    authority.cert_pem.write_to_path(str(made.authority))
    issued.private_key_pem.write_to_path(str(made.key))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(made.chain), append=True)
    return made
