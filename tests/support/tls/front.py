"""Speaks TLS on a port and hands on to another: `python -m support.tls.front PORT TARGET CERTIFICATE [CLIENTS_CA]`."""

from __future__ import annotations

import asyncio
import ssl
import sys
from contextlib import suppress


async def serve(port: int, target: int, context: ssl.SSLContext) -> None:
    """Carry connections until the process ends."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    server = await asyncio.start_server(carry, "127.0.0.1", port, ssl=context)
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def main(port: str, target: str, certificate: str, clients_ca: str | None = None) -> None:
    """Serve with the certificate and key of a PEM file; clients show one too where a CA for them is named."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if clients_ca is not None:
        context.load_verify_locations(clients_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    asyncio.run(serve(int(port), int(target), context))


if __name__ == "__main__":
    main(*sys.argv[1:])
