#!/usr/bin/env bash
# litserve 0.2.19: SIGTERM ends the process that called `LitServer.run`, and leaves the server running.
#
# Its documentation promises a graceful end on SIGTERM, as containers and schedulers send it. Only SIGINT is caught: on
# SIGTERM the parent dies by the signal, while the process with the web server and the worker with the model go on as
# children of nobody, hold the port and the accelerator's memory, and answer requests. A restart under a supervisor then
# finds the port taken, or two models in memory.
#
# Expected: "nothing listens". Seen, three seconds after the parent has ended:
#   the parent ended by signal 15; /health says ok
set -euo pipefail
work=$(mktemp -d)
trap 'pkill -KILL -f "$work/venv" || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check litserve==0.2.19

cat > "$work/serve.py" <<'PY'
import sys

import litserve


class Echo(litserve.LitAPI):
    def setup(self, device):
        pass

    def predict(self, request):
        return request


if __name__ == "__main__":
    litserve.LitServer(Echo(), accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error"
    )
PY
cat > "$work/ask.py" <<'PY'
import signal
import socket
import subprocess
import sys
import time
import urllib.request

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]


def health():
    try:
        return "/health says " + urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read().decode()
    except OSError:
        return "nothing listens"


server = subprocess.Popen([sys.executable, "serve.py", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
deadline = time.monotonic() + 120
while "ok" not in health() and time.monotonic() < deadline:
    time.sleep(0.5)
server.send_signal(signal.SIGTERM)
code = server.wait(60)
time.sleep(3)
print(f"the parent ended by signal {-code}; {health()}")
PY
seen=$(cd "$work" && "$work/venv/bin/python" ask.py)
echo "$seen"
[ "$seen" = "the parent ended by signal 15; /health says ok" ]
