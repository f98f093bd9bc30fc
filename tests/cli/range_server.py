"""A file server on loopback that serves parts of files; prints its port, ends after two minutes."""

import functools
import http.server
import re
import sys
import threading
from pathlib import Path

LIFE_S = 120


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Answers a Range header, as every store of imagery does."""

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None or not path.is_file():
            return super().do_GET()
        body = path.read_bytes()
        first, last = int(span[1]), min(int(span[2] or len(body)), len(body) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        return self.wfile.write(body[first : last + 1])

    def log_message(self, *_):
        pass


handler = functools.partial(Ranges, directory=sys.argv[1])
with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    threading.Timer(LIFE_S, server.shutdown).start()
    print(server.server_port, flush=True)
    server.serve_forever()
