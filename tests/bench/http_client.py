"""A keep-alive HTTP connection that costs next to nothing: what is measured is the server."""

import socket

_TIMEOUT_S = 60.0


class Connection:
    """One connection to 127.0.0.1; reconnects when the server has closed it. For one thread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def send(self, request: bytes) -> tuple[int, bytes, float]:
        """Status, body, and the seconds of `Retry-After` (0 when absent)."""
        try:
            return self._exchange(request)
        except ConnectionError:
            self.close()
            return self._exchange(request)

    def close(self) -> None:
        """Disconnect."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, request: bytes) -> tuple[int, bytes, float]:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=_TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        received = self._receive(b"")
        while (end := received.find(b"\r\n\r\n")) < 0:
            received = self._receive(received)
        status = int(received[9:12])
        headers = dict(line.lower().split(b": ", 1) for line in received[:end].split(b"\r\n")[1:])
        length = int(headers[b"content-length"])
        while len(received) < end + 4 + length:
            received = self._receive(received)
        return status, received[end + 4 :], float(headers.get(b"retry-after", b"0"))

    def _receive(self, received: bytes) -> bytes:
        assert self._socket is not None
        more = self._socket.recv(1 << 18)
        if not more:
            raise ConnectionResetError("the server closed the connection")
        return received + more


def post(path: str, body: bytes, headers: str = "Content-Type: application/json\r\n") -> bytes:
    """The bytes of a request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: any\r\n"
        f"{headers}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def get(port: int, path: str) -> int:
    """Status of one GET on a connection of its own; 0 when nothing answers."""
    connection = Connection(port)
    try:
        return connection.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: any\r\n\r\n".encode())[
            0
        ]
    except OSError:
        return 0
    finally:
        connection.close()
