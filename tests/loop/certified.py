"""A redis-server that asks its clients for a certificate, with the certificates that this takes."""

import subprocess
from pathlib import Path

import redis

from servers import Redis


def certificates(folder: Path) -> None:
    """An authority, `ca`, and what it has signed: `server`, for 127.0.0.1, and `client`."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=test-authority")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signs = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", *signs, "-out", f"{name}.crt")


class CertifiedRedis(Redis):
    """Speaks TLS only, and lets in clients with a certificate of its authority only."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        certificates(folder)
        super().__init__(folder, "--tls-auth-clients", "yes")
        self.url = f"rediss://127.0.0.1:{self.port}/0"

    def ports(self) -> list[str]:
        self.client = redis.Redis(
            host="127.0.0.1", port=self.port, socket_timeout=60, ssl=True, ssl_ca_certs=self.path("ca.crt"), ssl_certfile=self.path("client.crt"), ssl_keyfile=self.path("client.key")
        )
        files = ("--tls-cert-file", "server.crt", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.crt")
        return ["--port", "0", "--tls-port", str(self.port), *files]

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def secret(self) -> dict[str, str]:
        """The Secret of a pool on it."""
        text = {"REDIS_CA": "ca.crt", "REDIS_CLIENT_CERT": "client.crt", "REDIS_CLIENT_KEY": "client.key"}
        return {"REDIS_URL": self.url} | {key: Path(self.path(name)).read_text() for key, name in text.items()}

    def environment(self) -> dict[str, str]:
        """What a worker is told besides the URL."""
        names = {"redis_ca_file": "ca.crt", "redis_client_cert_file": "client.crt", "redis_client_key_file": "client.key"}
        return {variable: self.path(name) for variable, name in names.items()}
