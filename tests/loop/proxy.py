"""Proxies before the API server, which do to the operator what networks and overloaded API servers do."""

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import subprocess
import threading
from pathlib import Path

from servers import ControlPlane


class Proxy:
    """Listens on an address of its own, and lets everything through until it is told otherwise."""

    def __init__(self, control_plane: ControlPlane, folder: Path):
        self.upstream = (control_plane.address.hostname, control_plane.address.port)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.writers: set[asyncio.StreamWriter] = set()
        self.server = self.do(asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.tls(folder)))
        self.port = self.server.sockets[0].getsockname()[1]
        text = control_plane.kubeconfig.read_text()
        text = re.sub(r"(server: *)[^\s}]+", rf"\g<1>https://127.0.0.1:{self.port}", text)
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(self.adapt(text, folder))

    def tls(self, folder: Path) -> ssl.SSLContext | None:
        return None

    def adapt(self, kubeconfig: str, folder: Path) -> str:
        return kubeconfig

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self.carry(reader, writer)
        finally:
            self.writers.discard(writer)
            writer.close()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.hold()
            writer.write(data)
            await writer.drain()

    async def both(self, one, other) -> None:
        """Copies both ways until one side ends."""
        tasks = [asyncio.ensure_future(self.pipe(one[0], other[1])), asyncio.ensure_future(self.pipe(other[0], one[1]))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def hold(self) -> None:
        pass

    def cut(self) -> None:
        """Ends all connections with RST."""

        async def cut():
            for writer in list(self.writers):
                if raw := writer.get_extra_info("socket"):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

        self.do(cut())

    def stop(self) -> None:
        async def end():
            self.server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.do(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


class Line(Proxy):
    """Carries bytes, so TLS and HTTP/2 are between the operator and the API server."""

    def __init__(self, *arguments):
        self.delay = 0.0
        self.silent, self.resets = False, False
        super().__init__(*arguments)

    async def hold(self) -> None:
        await asyncio.sleep(self.delay)
        # What arrived meanwhile is lost: bytes that were held back once never arrive.
        while self.silent:
            await asyncio.sleep(3600)

    async def carry(self, reader, writer):
        if self.resets:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return writer.transport.abort()
        up = await asyncio.open_connection(*self.upstream)
        try:
            await self.both((reader, writer), up)
        finally:
            up[1].close()

    def stall(self) -> None:
        """From now on nothing arrives any more on any connection, and none is closed: the kernel acknowledges, too."""
        self.silent = True

    def reset(self) -> None:
        """Ends all connections, and every new one."""
        self.resets = True
        self.cut()

    def recover(self) -> None:
        """Carries new connections again. Those that were held back stay dead, and are never closed."""
        self.silent, self.resets, self.delay = False, False, 0.0


class Front(Proxy):
    """Ends TLS itself and carries one HTTP/1.1 request per connection, so it can answer in the API server's place."""

    def __init__(self, control_plane: ControlPlane, folder: Path):
        self.rules: list[tuple[re.Pattern, int, str, str]] = []
        self.answered = 0
        self.cut_off: tuple[re.Pattern, int] | None = None
        self.context = control_plane.context
        super().__init__(control_plane, folder)

    def tls(self, folder: Path) -> ssl.SSLContext:
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=front"
        command += " -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
        files = ["-keyout", str(folder / "front.key"), "-out", str(folder / "front.crt")]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "front.crt", folder / "front.key")
        return context

    def adapt(self, kubeconfig: str, folder: Path) -> str:
        return re.sub(r"(certificate-authority: *)[^\s}]+", rf"\g<1>{folder / 'front.crt'}", kubeconfig)

    def answer(self, request: str, status: int, headers: str = "", body: str = "") -> None:
        """Answers requests whose first line matches with this status, and 0 with the end of the connection."""
        self.rules.append((re.compile(request), status, headers, body))
        self.cut()

    def cut_off_after(self, request: str, length: int) -> None:
        """Carries only so many bytes of what the API server answers to requests whose first line matches."""
        self.cut_off = (re.compile(request), length)

    def recover(self) -> None:
        self.rules.clear()
        self.cut_off = None
        self.cut()

    async def carry(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        request, _, rest = head.partition(b"\r\n")
        for pattern, status, headers, text in self.rules:
            if pattern.search(request.decode()):
                self.answered += 1
                if status:
                    body = b'{"kind":"Status","apiVersion":"v1","status":"Failure","message":"by the proxy","code":%d}' % status
                    body = text.encode() or body
                    length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}"
                    writer.write(f"HTTP/1.1 {status} No\r\nConnection: close\r\n{length}\r\n".encode() + body)
                    await writer.drain()
                return None
        rest = re.sub(rb"(?im)^connection:.*\r\n", b"", rest)
        up = await asyncio.open_connection(*self.upstream, ssl=self.context, server_hostname=self.upstream[0])
        try:
            up[1].write(request + b"\r\nConnection: close\r\n" + rest)
            if self.cut_off and self.cut_off[0].search(request.decode()):
                return await self.carry_part(up[0], writer, self.cut_off[1])
            await self.both((reader, writer), up)
        finally:
            up[1].close()

    async def carry_part(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
        while data := await reader.read(length):
            writer.write(data)
            await writer.drain()
            length -= len(data)
        await asyncio.sleep(3600)
