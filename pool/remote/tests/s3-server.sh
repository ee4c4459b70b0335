#!/bin/bash
# A real S3 server for tests: installs moto beside the build, then runs it on loopback.
#
#   s3-server.sh --install     only install
#   s3-server.sh PORT          run in the foreground; 0 takes a free port. The first line printed is
#                              the port. It ends when standard input does, so it outlives nobody.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../../target}
version=5.2.5
venv=$target/s3-venv

works() { # whether the right version can be imported, wherever it was put
	PYTHONPATH=$venv/lib "$1" -c "
import sys, importlib.metadata as m, moto.server
sys.exit(m.version('moto') != '$version')" 2> /dev/null
}

python() { # the interpreter to run it with
	if [ -x "$venv/bin/python3" ]; then echo "$venv/bin/python3"; else command -v python3; fi
}

install() {
	mkdir -p "$target"
	exec 9> "$target/s3-venv.lock"
	flock 9
	if ! works "$(python)"; then
		rm -rf "$venv"
		if python3 -m venv "$venv" > /dev/null 2>&1; then
			"$venv/bin/python3" -m pip install --quiet --disable-pip-version-check \
				"moto[server]==$version" >&2
		else # no venv module, as on a Debian without python3-venv
			rm -rf "$venv"
			python3 -m pip install --quiet --disable-pip-version-check --target "$venv/lib" \
				"moto[server]==$version" >&2
		fi
		works "$(python)" || { echo "s3-server.sh: moto $version cannot be imported" >&2; exit 1; }
	fi
	exec 9>&-
}

install
if [ "${1:-}" = --install ]; then
	exit 0
fi

# Werkzeug's server, as moto_server runs it, but with its port told and its life tied to ours, and with HTTP/1.1:
# the client keeps connections.
PYTHONPATH=$venv/lib exec "$(python)" -c "
import logging, os, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

logging.getLogger('werkzeug').disabled = True
WSGIRequestHandler.protocol_version = 'HTTP/1.1'
app = DomainDispatcherApplication(create_backend_app)
server = make_server('127.0.0.1', int(sys.argv[1]), app, threaded=True)
print(server.server_port, flush=True)

def end_with_parent():
    sys.stdin.buffer.read()
    os._exit(0)

threading.Thread(target=end_with_parent, daemon=True).start()
server.serve_forever()
" "${1:?a port, 0 for a free one}"
