"""ClickHouse's HTTP interface over chDB, in a process of its own, with faults on command.

Each port stands for a host; all of them are of one engine. That can be a cluster of one shard, which is
itself: what is to be done ON CLUSTER is done here.

As much of the interface as `clickhouse-connect` uses: statements with bound parameters and settings,
inserts of any format, forms for long parameters, exception codes. Commands come as JSON lines on
standard input, and each is confirmed by a line on standard output; the process ends with its input.

Usage: server.py [--cluster] DATA_DIR PORT...
"""

import contextlib
import gzip
import json
import re
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import chdb
import lz4.frame
import multipart
import zstandard

# Parameters that are for the transport and no settings of the engine.
_TRANSPORT = frozenset(
    {
        "query",
        "database",
        "session_id",
        "query_id",
        "wait_end_of_query",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "enable_http_compression",
        "cancel_http_readonly_queries_on_client_close",
        "client_protocol_version",
    }
)
# As runstore's own engine has them, so that no test waits for the pauses between mutations.
_OPTIONS = (
    "backups.allowed_path=/"
    "&background_processing_pool_task_sleep_seconds_when_no_work_random_part=0"
    "&background_processing_pool_thread_sleep_seconds_if_nothing_to_do=0.01"
    "&background_processing_pool_task_sleep_seconds_when_no_work_multiplier=1.5"
)
_INSERT = re.compile(rb"\s*INSERT\s+INTO\s+\S+\s*(?:\([^)]*\)\s*)?FORMAT\s+(\w+)[ \t]*\r?\n?", re.IGNORECASE)
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_CODE = re.compile(r"Code: (\d+)")
_ON_CLUSTER = re.compile(rb"^([^']*?) ON CLUSTER \w+", re.DOTALL)
_REPLICATED = re.compile(rb"ENGINE = Replicated(\w*MergeTree)\('[^']*', '[^']*'(?:, )?")
# chDB listens nowhere; with a port in its configuration it takes a shard at that port for itself.
_CLUSTER_CONFIG = """
<clickhouse>
  <tcp_port>9000</tcp_port>
  <remote_servers><one><shard><internal_replication>true</internal_replication>
    <replica><host>localhost</host><port>9000</port></replica>
  </shard></one></remote_servers>
</clickhouse>
"""
_WHOLE_BODY_BYTES = 1 << 30
# As a server has it by default (`http_max_field_value_size`), which takes one byte more.
_MAX_FIELD_BYTES = 128 * 1024 + 1


@dataclass
class Fault:
    """What happens to requests; see `front.Fault`, whose fields these are."""

    kind: str = "none"
    code: int = 0
    delay_s: float = 0.0
    only: str = ""


class Front(ThreadingHTTPServer):
    """Listens, and knows its open connections, so that it can cut them."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], data_dir: str, faults: "Faults") -> None:
        self.data_dir = data_dir
        self.faults = faults
        self.connections: set[socket.socket] = set()
        super().__init__(address, Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections break here on purpose; everything else is a defect of this file."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def cut_connections(self) -> None:
        """Break every connection, whatever is under way on it."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Faults:
    """The fault that is in force."""

    def __init__(self) -> None:
        self.current = Fault()
        self.changed = threading.Condition()

    def set(self, fault: Fault) -> None:
        """Put another one into force; what hangs goes on."""
        with self.changed:
            self.current = fault
            self.changed.notify_all()

    def wait_for_another(self, fault: Fault) -> None:
        """Return once `fault` is over."""
        with self.changed:
            self.changed.wait_for(lambda: self.current is not fault)


class Handler(BaseHTTPRequestHandler):
    """One connection; it has its own handle of the engine, and so its own settings."""

    protocol_version = "HTTP/1.1"
    server: Front

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._engine: Any = None
        self._settings: dict[str, str] = {}

    def finish(self) -> None:
        if self._engine is not None:
            self._engine.close()
        super().finish()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """As POST; `/ping` answers without the engine."""
        self.do_POST()

    def do_POST(self) -> None:
        """Run a statement, unless a fault is in force."""
        body = self._body()
        fault = self.server.faults.current
        if fault.only not in unquote_plus(self.path) + body.decode(errors="replace"):
            fault = Fault()
        if fault.kind == "hang":
            self.server.faults.wait_for_another(fault)
            self._cut()
        elif fault.kind == "unavailable":
            self._answer(503, b"the front is told to be unavailable", {})
        elif fault.kind == "error":
            self._refuse(f"Code: {fault.code}. DB::Exception: told to fail so")
        else:
            time.sleep(fault.delay_s)
            self._execute(body, is_answered=fault.kind != "lose_answers")

    def _execute(self, body: bytes, *, is_answered: bool) -> None:
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        try:
            statement = self._statement(parameters, body)
            data, data_format = self._run(statement, parameters)
        except RuntimeError as error:
            self._refuse(str(error))
            return
        if is_answered:
            self._answer(200, data, {"X-ClickHouse-Format": data_format} if data_format else {})
        else:
            self._cut()

    def _statement(self, parameters: dict[str, str], body: bytes) -> bytes:
        """The statement with the data behind it; `parameters` get those of a form."""
        kind, options = multipart.parse_options_header(self.headers.get("Content-Type", ""))
        if kind == "multipart/form-data":
            for field in multipart.MultipartParser(_stream(body), options["boundary"]):
                if len(field.raw) > _MAX_FIELD_BYTES:
                    raise RuntimeError(f"Code: 1000. HTML Form Exception: Field value too long: {field.name}")
                parameters[field.name] = field.raw.decode()
            body = b""
        query = parameters.get("query", "").encode()
        return query + b"\n" + body if query and body else query or body

    def _run(self, statement: bytes, parameters: dict[str, str]) -> tuple[bytes, str]:
        """The result and its format, "" when the statement has none."""
        if self._engine is None:
            self._engine = _connect(self.server.data_dir)
        self._set({name: value for name, value in parameters.items() if not _is_apart(name)})
        bound = {name.removeprefix("param_"): value for name, value in parameters.items() if "param_" in name}
        statement = _on_this_node(statement)
        if insert := _INSERT.match(statement):
            self._insert(statement[: insert.end()], insert[1].decode(), statement[insert.end() :])
            return b"", ""
        text = statement.decode()
        if asked := _FORMAT.search(text):
            return self._engine.query(text, asked[1], params=bound).bytes() or b"", asked[1]
        # The line of names tells an empty result from none.
        result: bytes = self._engine.query(text, "TabSeparatedWithNames", params=bound).bytes() or b""
        return result.partition(b"\n")[2], "TabSeparated" if result else ""

    def _set(self, settings: dict[str, str]) -> None:
        for name, value in settings.items():
            if self._settings.get(name) != value:
                literal = value.replace("\\", "\\\\").replace("'", "\\'")
                self._engine.query(f"SET {name} = '{literal}'", "TabSeparated")
                self._settings[name] = value

    def _insert(self, head: bytes, data_format: str, data: bytes) -> None:
        target = head.decode().rsplit("FORMAT", 1)[0]
        with tempfile.NamedTemporaryFile(suffix=".block") as file:
            file.write(data)
            file.flush()
            statement = f"{target} FROM INFILE '{file.name}' FORMAT {data_format}"
            self._engine.query(statement, "TabSeparated")

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(chunks)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match self.headers.get("Content-Encoding", ""):
            case "lz4":
                return bytes(lz4.frame.decompress(body))
            case "zstd":
                return zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True).read()
            case "gzip":
                return gzip.decompress(body)
        return body

    def _refuse(self, message: str) -> None:
        code = _CODE.search(message)
        headers = {"X-ClickHouse-Exception-Code": code[1] if code else "1002"}
        self._answer(500, message.encode(), headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _connect(data_dir: str) -> Any:
    separator = "&" if "?" in data_dir else "?"
    return chdb.connect(f"{data_dir}{separator}{_OPTIONS}")  # type: ignore[no-untyped-call] # chDB has no annotations here


def _on_this_node(statement: bytes) -> bytes:
    """What Keeper would have this node do; without one, a replicated table is a plain one."""
    if (is_for_all := _ON_CLUSTER.match(statement)) is None:
        return statement
    return _REPLICATED.sub(rb"ENGINE = \1(", is_for_all[1] + statement[is_for_all.end() :])


def _is_apart(name: str) -> bool:
    return name in _TRANSPORT or name.startswith("param_")


def _stream(body: bytes) -> Any:
    file = tempfile.SpooledTemporaryFile(max_size=_WHOLE_BODY_BYTES)  # noqa: SIM115 - closed with the form
    file.write(body)
    file.seek(0)
    return file


class Host:
    """One port of the engine: what a client takes for a host."""

    def __init__(self, port: int, data_dir: str) -> None:
        self._port = port
        self._data_dir = data_dir
        self._faults = Faults()
        self._front: Front | None = None

    def suffer(self, fault: Fault) -> None:
        """Put a fault into force."""
        front = self._front
        if front is not None and fault.kind in ("refuse", "cut"):
            front.cut_connections()
        if front is not None and fault.kind == "refuse":
            front.shutdown()
            front.server_close()
            front.cut_connections()
            self._front = None
        elif front is None and fault.kind != "refuse":
            self._front = front = Front(("127.0.0.1", self._port), self._data_dir, self._faults)
            threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self._faults.set(fault)


def main() -> None:
    """Serve until standard input ends."""
    is_cluster = sys.argv[1] == "--cluster"
    data_dir, *ports = sys.argv[1 + is_cluster :]
    Path(data_dir).mkdir(parents=True, exist_ok=True)
    if is_cluster:
        config = Path(f"{data_dir}.xml")
        config.write_text(_CLUSTER_CONFIG)
        data_dir = f"{data_dir}?config-file={config}"
    keep_open = _connect(data_dir)  # The engine stays loaded between connections.
    hosts = [Host(int(port), data_dir) for port in ports]
    print("started", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        for number in command["hosts"]:
            hosts[number].suffer(Fault(**command["fault"]))
        print("done", flush=True)
    keep_open.close()


if __name__ == "__main__":
    main()
