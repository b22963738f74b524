"""The interface with a certificate, which is renewed while it serves."""

import socket
import ssl

from certified import certificates
from gateways import Gateway

from waiting import until


def shown(gateway: Gateway, authority: str) -> bytes | None:
    """The certificate that a client is shown; None if this authority has not signed it."""
    context = ssl.create_default_context(cafile=authority)
    try:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
                return connection.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError:
        return None


def test_a_renewed_certificate_is_used_without_a_restart_and_a_broken_one_is_not(bed, tmp_path):
    certificates(tmp_path)
    authority, certificate, key = (str(tmp_path / name) for name in ("ca.crt", "server.crt", "server.key"))
    options = ["--tls-cert", certificate, "--tls-key", key]
    gateway = Gateway(tmp_path, bed.control_plane.kubeconfig, bed.a.namespace, *options)
    try:
        first = shown(gateway, authority)
        assert first
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"200 OK" not in plain.recv(100), "nothing is served without TLS"
        certificates(tmp_path)
        until("the new one is shown", lambda: shown(gateway, authority) not in (None, first), 20)
        second = shown(gateway, authority)
        (tmp_path / "server.crt").write_text("no certificate")
        until("it says so", lambda: "the one before stays in use" in gateway.log.read_text(), 20)
        assert shown(gateway, authority) == second
    finally:
        gateway.stop()
