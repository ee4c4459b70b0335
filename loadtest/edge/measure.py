"""What does one run of a client cost a proxy, and what did the client see?"""

import os
import pathlib
import re
import statistics
import subprocess

from peers import HOST, OTHER_CORE, pinned

MIB = 1 << 20
# One cipher for all: what a server would pick differs, and with it what is measured.
CIPHER = "TLS_AES_128_GCM_SHA256"


class Clients:
    """The load clients, and where their files go."""

    def __init__(self, directory, binary_dir, core=OTHER_CORE):
        self.directory, self.binary_dir = directory, binary_dir
        self.pinned = pinned(core)
        self.edge_load = binary_dir / "edge_load"

    def run(self, proxy, protocol, path, connections, streams, seconds):
        """Sends requests as fast as they are answered; what that took."""
        before = proxy.cpu_s()
        if protocol == "h3":
            seen = self.own(proxy, protocol, path, connections, streams, seconds)
        else:
            seen = self.h2load(proxy, protocol, path, connections, streams, seconds)
        seen["cpu_s"] = proxy.cpu_s() - before
        seen["per_cpu_s"] = seen["done"] / max(seen["cpu_s"], 0.01)
        seen["per_s"] = seen["done"] / seen["seconds"]
        return seen

    def h2load(self, proxy, protocol, path, connections, streams, seconds):
        """h2load, one thread."""
        log = self.directory / "h2load.tsv"
        log.unlink(missing_ok=True)
        command = [*self.pinned, "h2load", "-t1", f"-c{connections}", f"-m{streams}"]
        command += [f"-D{seconds}", f"--tls13-ciphers={CIPHER}", f"--log-file={log}"]
        command += [f"--connect-to=127.0.0.1:{proxy.port}"]
        command += ["--h1"] if protocol == "h1" else []
        out = output([*command, f"https://{HOST}:{proxy.port}{path}"])
        done = re.search(r"requests: .*?(\d+) succeeded, (\d+) failed", out)
        status = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
        if not done or int(done[1]) == 0 or status[1] == "0" or (status[3], status[4]) != ("0", "0"):
            raise RuntimeError(f"{proxy.name} {protocol}: {out}")
        waits = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
        seen = {"done": int(done[1]), "failed": int(done[2]), "seconds": seconds}
        return seen | percentiles(waits)

    def own(self, proxy, protocol, path, connections, streams, seconds, rate=0, secure=True,
            upload=0):
        """The client of this repository: the only one here that speaks HTTP/3."""
        scheme = "https" if secure else "http"
        host = HOST if secure else "127.0.0.1"
        port = proxy.port if secure else proxy
        command = [*self.pinned, str(self.edge_load), "load"]
        command += ["--url", f"{scheme}://{host}:{port}{path}", "--ca-file", f"{self.directory}/cert.pem"]
        command += ["--protocol", protocol, "--connections", str(connections)]
        command += ["--streams", str(streams), "--seconds", str(seconds), "--rate", str(rate)]
        command += ["--upload", str(upload)]
        return read_pairs(output(command))

    def hold(self, proxy, kind, count):
        """Opens idle connections and reads what memory the proxy has with them and without. Each has to
        answer once more at the end."""
        before = proxy.rss_bytes()
        command = [str(self.edge_load), "hold", "--url", f"https://{HOST}:{proxy.port}/"]
        command += ["--ca-file", f"{self.directory}/cert.pem", "--kind", kind, "--connections", str(count)]
        client = subprocess.Popen(
            [*self.pinned, *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        try:
            line = client.stdout.readline()
            if not line.startswith("open"):
                raise RuntimeError(f"{proxy.name} {kind}: {line}")
            grown, opened = proxy.rss_bytes() - before, int(line.split()[1])
        finally:
            client.communicate(timeout=60)
        if client.returncode != 0:
            raise RuntimeError(f"{proxy.name} {kind}: a connection was lost")
        return grown, opened


def output(command):
    """What a command says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def read_pairs(text):
    """`name value` by line."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: float(pair[1]) for pair in pairs if len(pair) == 2}


def percentiles(waits):
    """Median and 99th percentile of sorted microseconds."""
    at = lambda share: waits[min(len(waits) - 1, int(len(waits) * share))]
    return {"p50_us": at(0.50), "p99_us": at(0.99)}


def median(runs, what):
    """The median of one figure of several runs."""
    return statistics.median(run[what] for run in runs)


def machine():
    """The processor, its count and the kernel."""
    text = pathlib.Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", text)
    return f"{name[1] if name else 'unknown'}, {os.cpu_count()} cores, Linux {os.uname().release}"
