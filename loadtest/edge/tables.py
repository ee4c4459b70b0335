"""The tables of the comparison: each measures, in interleaved rounds, and prints Markdown."""

import resource

import peers
from measure import MIB, median

CONNECTIONS = 64
LARGE_CONNECTIONS = 8
IDLE = {"h1": 1000, "h2": 1000, "h3": 500}
WEBSOCKETS = 10_000
WARM_CONNECTIONS = 20
# One process has a descriptor for each side of each; what is left of the limit is for the rest.
DESCRIPTORS_KEPT = 200


def speakers(proxies, protocol):
    """Those that speak it."""
    return [proxy for proxy in proxies if protocol in proxy.protocols]


def header(title, proxies):
    """The first two lines of a table."""
    print(f"\n| {title} | " + " | ".join(proxy.name for proxy in proxies) + " |")
    print("|---|" + "--:|" * len(proxies))


def row(title, proxies, cells):
    """One line; a proxy without a cell does not do that."""
    print(f"| {title} | " + " | ".join(cells.get(proxy.name, "–") for proxy in proxies) + " |", flush=True)


def in_turn(proxies, turn):
    """Their order in a turn. It alternates: a machine that becomes slower, or a disk that is busy with the
    logs of those before, would favour those that come first."""
    return proxies[::-1] if turn % 2 else proxies


def rounds(args, proxies, run):
    """What `run` says of each proxy, by name: one short run for warming up, then `args.rounds`."""
    runs = {proxy.name: [] for proxy in proxies}
    for turn in range(args.rounds + 1):
        for proxy in in_turn(proxies, turn):
            seen = run(proxy, args.seconds if turn else 1)
            if turn:
                runs[proxy.name].append(seen)
    return runs


def steady(args, clients, proxies, protocols):
    """1 KiB answers, as many as possible."""
    header(f"1 KiB, {CONNECTIONS} connections", proxies)
    for protocol, title, streams in [("h1", "h1", 1), ("h2", "h2, 1 stream", 1),
                                     ("h2", "h2, 8 streams", 8), ("h3", "h3", 1)]:
        if protocol not in protocols:
            continue
        run = lambda proxy, seconds: clients.run(proxy, protocol, "/", CONNECTIONS, streams, seconds)
        runs = rounds(args, speakers(proxies, protocol), run)
        for what, unit in [("per_cpu_s", "requests per CPU-second"), ("per_s", "requests/s"),
                           ("p50_us", "p50, µs"), ("p99_us", "p99, µs")]:
            cells = {name: f"{median(seen, what):,.0f}" for name, seen in runs.items()}
            row(f"{title}: {unit}", proxies, cells)


def large(args, clients, proxies, protocols):
    """10 MiB answers."""
    header(f"10 MiB, {LARGE_CONNECTIONS} connections", proxies)
    for protocol in ["h1", "h2", "h3"]:
        if protocol not in protocols:
            continue
        run = lambda proxy, seconds: clients.run(proxy, protocol, "/10m", LARGE_CONNECTIONS, 1, seconds)
        runs = rounds(args, speakers(proxies, protocol), run)
        for what, unit in [("per_cpu_s", "MB per CPU-second"), ("per_s", "MB/s")]:
            cells = {name: f"{median(seen, what) * 10 * MIB / 1e6:,.0f}" for name, seen in runs.items()}
            row(f"{protocol}: {unit}", proxies, cells)


def fresh(proxy, clients, upstream_port, kind, count):
    """Memory that `count` idle connections cost a process that has done next to nothing before:
    one that has keeps what it freed, and seems to need none."""
    proxy.stop()
    proxy.start(clients.directory, upstream_port)
    clients.hold(proxy, kind, WARM_CONNECTIONS)
    return clients.hold(proxy, kind, count)


def memory(clients, proxies, upstream_port, protocols):
    """What an idle connection costs. Each has been asked for one small answer."""
    header("memory per idle connection, KiB", proxies)
    for protocol, count in IDLE.items():
        if protocol not in protocols:
            continue
        cells = {}
        for proxy in speakers(proxies, protocol):
            grown, opened = fresh(proxy, clients, upstream_port, protocol, count)
            cells[proxy.name] = f"{grown / opened / 1024:.1f}"
        row(f"{protocol}, {count} connections", proxies, cells)


def websockets(clients, proxies, upstream_port):
    """Idle WebSockets held by one process: over HTTP/1.1 on a connection each, as many as there may be
    descriptors for, and over HTTP/2 a hundred on a connection."""
    allowed = (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - DESCRIPTORS_KEPT) // 2
    wrenn = [proxy for proxy in proxies if proxy.name == "Wrenn"]
    header("idle WebSockets over TLS", wrenn)
    for title, kind, count in [("h1", "ws", min(WEBSOCKETS, allowed)), ("h2", "ws-h2", WEBSOCKETS)]:
        grown, opened = fresh(wrenn[0], clients, upstream_port, kind, count)
        row(f"{title}: held", wrenn, {"Wrenn": f"{opened:,}"})
        row(f"{title}: memory each, KiB", wrenn, {"Wrenn": f"{grown / opened / 1024:.1f}"})


def latency(args, clients, wrenns, upstream_port, protocols):
    """What the edge adds to a request at half of its saturation."""
    print("\n| added latency at half of saturation, µs | " + " | ".join(w.name for w in wrenns) + " |")
    print("|---|" + "--:|" * len(wrenns))
    for protocol in protocols:
        runs = {wrenn.name: [] for wrenn in wrenns}
        rates = {}
        for wrenn in wrenns:
            most = clients.own(wrenn, protocol, "/", CONNECTIONS, 1, args.seconds)
            rates[wrenn.name] = int(most["done"] / most["seconds"] / 2)
        rate = min(rates.values())
        direct = []
        for turn in range(args.rounds):
            direct.append(clients.own(upstream_port, "h1", "/", CONNECTIONS, 1, args.seconds, rate, False))
            for wrenn in in_turn(wrenns, turn):
                runs[wrenn.name].append(
                    clients.own(wrenn, protocol, "/", CONNECTIONS, 1, args.seconds, rate))
        for what in ["p50_us", "p99_us"]:
            base = median(direct, what)
            cells = {name: f"{median(seen, what) - base:,.0f}" for name, seen in runs.items()}
            row(f"{protocol} at {rate:,}/s: {what[:3]} (direct {base:,.0f})", wrenns, cells)
