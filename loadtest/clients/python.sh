#!/bin/bash
# Python with the packages of requirements.txt, which are installed beside the build.
#
#   python.sh --install        only install
#   python.sh SCRIPT ARG...    run a script
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
venv=$target/clients-venv

python() { # the interpreter to run with
	if [ -x "$venv/bin/python3" ]; then echo "$venv/bin/python3"; else command -v python3; fi
}

works() { # whether all of these very packages were installed
	cmp -s "$here/requirements.txt" "$venv/requirements.txt"
}

install() {
	mkdir -p "$target"
	exec 9> "$target/clients-venv.lock"
	flock 9
	if ! works; then
		rm -rf "$venv"
		pip="-m pip install --quiet --disable-pip-version-check --requirement $here/requirements.txt"
		if python3 -m venv "$venv" > /dev/null 2>&1; then
			"$venv/bin/python3" $pip >&2
		else # no venv module, as on a Debian without python3-venv
			rm -rf "$venv"
			python3 $pip --target "$venv/lib" >&2
		fi
		cp "$here/requirements.txt" "$venv/"
	fi
	exec 9>&-
}

install
if [ "${1:-}" = --install ]; then
	exit 0
fi
PYTHONPATH=$venv/lib PYTHONDONTWRITEBYTECODE=1 exec "$(python)" "$@"
