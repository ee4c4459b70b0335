#!/usr/bin/env python3
"""The edge beside other proxies, in one run, on the same upstream: Markdown tables on stdout.

    compare.py --bin-dir target/release --dir .wrenn/bench-edge --venv .wrenn/bench-edge/venv --install
    compare.py ... --tables steady,large --protocols h1,h2 --peers HAProxy,nginx

The proxy measured has a core for itself, upstream and client share another. Rounds are interleaved
(every proxy once, then every proxy again), so that a change of the machine's speed hits all of them.
"""

import argparse
import datetime
import pathlib
import resource
import subprocess

import peers
import pingora
import tables
from measure import Clients, machine


# 10,000 connections and as many to the upstream, and what else a process has open.
DESCRIPTORS = 21_000


def main():
    args = arguments()
    allow_descriptors()
    directory = args.dir.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    peers.certificate(directory)
    examples = args.bin_dir.resolve() / "examples"
    upstream_port = peers.free_port()
    upstream = subprocess.Popen(
        ["taskset", "-c", peers.OTHER_CORE, examples / "bench_upstream", f"127.0.0.1:{upstream_port}"],
        stdout=subprocess.DEVNULL,
    )
    proxies = [peers.wrenn(examples / "bench_edge")]
    for binary in args.also:
        proxies.append(peers.wrenn(binary.resolve(), f"Wrenn {binary.name}"))
    if (naive := examples / "bench_naive").exists():
        proxies.append(peers.naive(naive))
    notes = ""
    if args.install:
        peers.install(args.venv.resolve())
        built, why = pingora.build(directory, args.venv.resolve())
        notes = "" if built else f"Pingora is left out: {why.strip()[-200:]}"
    if (built := pingora.built(directory)).exists():
        proxies.append(peers.pingora(built))
    proxies += peers.packaged(args.venv.resolve())
    logging = peers.logging()
    if args.peers is not None:
        wanted = args.peers.split(",")
        proxies = [proxy for proxy in proxies if proxy.name.startswith("Wrenn") or proxy.name in wanted]
        logging = [proxy for proxy in logging if proxy.name in wanted]
    try:
        peers.wait_listening(upstream_port, upstream)
        for proxy in proxies:
            proxy.start(directory, upstream_port)
        clients = Clients(directory, examples)
        print(f"{machine()}, {datetime.date.today()}; {args.rounds} interleaved rounds of "
              f"{args.seconds} s, medians. {notes}")
        protocols = args.protocols.split(",")
        wanted = args.tables.split(",")
        if "steady" in wanted:
            for proxy in logging:
                proxy.start(directory, upstream_port)
            tables.steady(args, clients, proxies + logging, protocols)
        if "large" in wanted:
            tables.large(args, clients, proxies, protocols)
        if "memory" in wanted:
            tables.memory(clients, proxies, upstream_port, protocols)
        if "websockets" in wanted:
            tables.websockets(clients, proxies, upstream_port)
        if "latency" in wanted:
            many = peers.wrenn(examples / "bench_edge", "100,000 routes", 100_000)
            few = peers.wrenn(examples / "bench_edge", "10 routes", 10)
            proxies += [few.start(directory, upstream_port), many.start(directory, upstream_port)]
            tables.latency(args, clients, [few, many], upstream_port, protocols)
    finally:
        for proxy in proxies + logging:
            proxy.stop()
        upstream.terminate()
        upstream.wait()


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=pathlib.Path, required=True)
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="for files of the run")
    parser.add_argument("--venv", type=pathlib.Path, default=pathlib.Path("."), help="has envoy and caddy")
    parser.add_argument("--also", type=pathlib.Path, action="append", default=[], help="another bench_edge")
    parser.add_argument("--peers", help="only these, by name")
    parser.add_argument("--protocols", default="h1,h2,h3")
    parser.add_argument("--tables", default="steady,large,memory,websockets,latency")
    parser.add_argument("--install", action="store_true", help="get the peers that are missing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    return parser.parse_args()


def allow_descriptors():
    """As many as are needed, or as there may be: the table says how many WebSockets are held."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(most, DESCRIPTORS), most):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return
        except (OSError, ValueError):
            continue  # more than this user may allow itself


if __name__ == "__main__":
    main()
