"""Between the operator and a server: what slows answers down."""

import asyncio
import threading


class SlowProxy:
    """A TCP proxy before a server of this machine that holds back what it answers for `seconds`; many answers may be
    under way, as on a long line."""

    def __init__(self, port: int):
        self.to, self.seconds = port, 0.0
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        server = asyncio.run_coroutine_threadsafe(self.listen(), self.loop).result()
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self.serve, "127.0.0.1", 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.to)
        await asyncio.gather(self.pass_on(reader, server_writer, False), self.pass_on(server_reader, writer, True))

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held_back: bool) -> None:
        line: asyncio.Queue = asyncio.Queue()

        async def write() -> None:
            while (item := await line.get()) is not None:
                due, data = item
                await asyncio.sleep(max(0.0, due - self.loop.time()))
                writer.write(data)
                await writer.drain()
            writer.close()

        writing = asyncio.ensure_future(write())
        try:
            while data := await reader.read(1 << 16):
                due = self.loop.time() + (self.seconds if held_back else 0.0)
                line.put_nowait((due, data))
        except OSError:
            pass
        line.put_nowait(None)
        await asyncio.gather(writing, return_exceptions=True)
