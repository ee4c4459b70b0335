#!/usr/bin/env python3
"""What of the edge's code runs often? A profile for `rustc -C profile-use`, as `make dist` uses it.

    train.py --edge INSTRUMENTED/bench_edge --bin-dir target/dist --dir target/pgo/run --out edge.profdata

Runs an edge that counts (`-C profile-generate`) under loads of every kind: small and large answers,
uploads, WebSockets, new connections, over each protocol. A kind that is missing here would be built as
code that never runs.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys

import peers
from measure import Clients

PROTOCOLS = ["h1", "h2", "h3"]
# Path, protocol, streams, connections, bytes of a request's body, seconds.
LOADS = [
    *[("/", protocol, 1, 16, 0, 4) for protocol in PROTOCOLS],
    *[("/", protocol, 8, 8, 0, 4) for protocol in ("h2", "h3")],
    *[("/10m", protocol, 1, 4, 0, 1) for protocol in PROTOCOLS],
    ("/10m", "h2", 2, 2, 0, 1),
    *[("/", protocol, 1, 4, 512, 1) for protocol in PROTOCOLS],
    *[("/", protocol, 1, 4, 256 << 10, 1) for protocol in PROTOCOLS],
    ("/ws", "ws", 1, 16, 0, 2),
]
HELD = 200


def main():
    args = arguments()
    if args.out.exists() and args.out.stat().st_mtime > args.edge.stat().st_mtime:
        return
    tool = args.profdata or llvm_profdata()
    shutil.rmtree(args.dir, ignore_errors=True)
    args.dir.mkdir(parents=True)
    directory, examples = args.dir.resolve(), args.bin_dir.resolve() / "examples"
    os.environ["LLVM_PROFILE_FILE"] = str(directory / "edge-%p.profraw")
    peers.certificate(directory)
    upstream_port = peers.free_port()
    upstream = subprocess.Popen(
        [examples / "bench_upstream", f"127.0.0.1:{upstream_port}"], stdout=subprocess.DEVNULL
    )
    edge = peers.wrenn(args.edge.resolve())
    edge.core = None
    clients = Clients(directory, examples, core=None)
    try:
        peers.wait_listening(upstream_port, upstream)
        edge.start(directory, upstream_port)
        for path, protocol, streams, connections, upload, seconds in LOADS:
            clients.own(edge, protocol, path, connections, streams, seconds, upload=upload)
        for kind in PROTOCOLS:
            clients.hold(edge, kind, HELD)
    finally:
        edge.stop()  # it writes its counters as it ends
        upstream.terminate()
        upstream.wait()
    merged = directory / "edge.profdata"
    subprocess.run([tool, "merge", "-o", merged, *directory.glob("edge-*.profraw")], check=True)
    merged.replace(args.out)
    (directory / "access.log").unlink(missing_ok=True)


def llvm_profdata():
    """The one of the compiler's LLVM: the format of what is counted changes from release to release."""
    said = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    llvm = next(line for line in said.splitlines() if line.startswith("LLVM version: "))
    major = llvm.removeprefix("LLVM version: ").split(".")[0]
    where = ["rustc", "--print", "target-libdir"]
    libraries = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
    with_rustup = pathlib.Path(libraries).parent / "bin/llvm-profdata"
    for tool in (with_rustup, f"/usr/lib/llvm-{major}/bin/llvm-profdata", f"llvm-profdata-{major}"):
        if found := shutil.which(tool):
            return found
    sys.exit(f"llvm-profdata of LLVM {major} is needed: rustup component add llvm-tools, "
             f"or apt-get install llvm-{major}")


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=pathlib.Path, required=True, help="the bench_edge that counts")
    parser.add_argument("--bin-dir", type=pathlib.Path, required=True, help="has the upstream and the client")
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="for files of the run")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--profdata", help="llvm-profdata, if it is not where it usually is")
    return parser.parse_args()


if __name__ == "__main__":
    main()
