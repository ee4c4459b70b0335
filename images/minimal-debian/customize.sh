#!/bin/sh
# Turns a fresh Debian tree ($1) into the template `minimal-debian`. Runs on the host, as root, by mmdebstrap.
set -eu
root=$1

# The two accounts that code runs as. They have no password: `sudo` and `su` just work inside the VM,
# and nothing listens that a password would guard.
add_user() {
    chroot "$root" useradd --create-home --shell /bin/bash --uid "$2" --user-group "$1"
    chroot "$root" passwd --quiet --delete "$1"
}
add_user user 1000
add_user wrenn-user 1001
cat >"$root/etc/sudoers.d/wrenn" <<'EOF'
Defaults !lecture
user ALL=(ALL:ALL) NOPASSWD:ALL
wrenn-user ALL=(ALL:ALL) NOPASSWD:ALL
EOF
chmod 0440 "$root/etc/sudoers.d/wrenn"

# Placeholders: the guest's init writes the name server, envd the host name of each sandbox.
echo wrenn >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost\n127.0.1.1\twrenn\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
rm -f "$root/etc/resolv.conf"
echo '# Written by the guest init from wrenn.dns=' >"$root/etc/resolv.conf"
cat >"$root/etc/environment" <<'EOF'
PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LANG=C.UTF-8
EOF
# The host name is another in every sandbox: answered locally, or `sudo` would ask a name server that may not be reachable.
sed -i 's/^hosts:.*/hosts: files myhostname dns/' "$root/etc/nsswitch.conf"
: >"$root/etc/fstab"
# One id shared by all clones would be worse than none.
: >"$root/etc/machine-id"

# Inside the sandbox, packages come from the public archive whatever mirror built this image.
rm -f "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/apt.conf.d/99mmdebstrap
cat >"$root/etc/apt/sources.list" <<'EOF'
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
EOF

# Mount points of the guest's init.
mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/tmp" "$root/usr/local/bin"
chmod 1777 "$root/tmp"

# Left over from the installation.
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"
rm -rf "$root"/var/log/*.log "$root"/var/log/apt "$root"/var/cache/ldconfig "$root"/var/cache/debconf/*-old \
    "$root"/var/lib/dpkg/*-old "$root"/etc/*- "$root"/tmp/* "$root"/run/*
