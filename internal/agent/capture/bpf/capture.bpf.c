/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's half of package capture. A connection's record goes this way,
 * from one socket to the other, and is at no moment where another's could be
 * taken for it:
 *
 *   connect(2)     connect4, connect6: who it is is written on the caller's
 *                  own socket (connecting), and the connection is sent to the door
 *   first packet   sockops: the record leaves the caller's socket and waits
 *                  under what the packet says (handshakes)
 *   last of three  sockops: it is written on the door's own new socket (accepted)
 *   accept(2)      the agent reads it by the descriptor that it accepted
 *
 * In between it waits under namespace, both addresses, both ports AND the
 * caller's first sequence number: a connection that is gone leaves a record
 * that no other connection with the same ports can pick up.
 *
 * 1 lets a call go on, 0 refuses it with EPERM. Whatever is not understood is
 * refused.
 */
#include "kernel.h"

char _license[] SEC("license") = "Dual BSD/GPL";

enum {
	ALLOW = 1,
	REFUSE = 0,

	/* What is done with a target. */
	SEND = 1, /* sent to the door, with a record */
	NOTE = 2, /* goes where it goes, with a record */

	LOOPBACK_IFINDEX = 1,

	TICK_NS = 10000000, /* as /proc/PID/stat has times */

	CGROUP_DEPTH = 16,
	CGROUP_NAME = 128,
};

/* Who made a connection. Eight bytes first: no hole in it. */
struct record {
	__u64 start_ns; /* of the process, since boot */
	__u64 cgroup;
	__u64 netns;
	__u64 inode; /* of the executable */
	__u32 dev;   /* its filesystem's, as the kernel has it: 12 bits, 20 bits */
	__u32 pid;   /* the process, not the thread */
	__u32 uid;   /* effective, as SO_PEERCRED has it */
	__u32 gid;
};

struct endpoint {
	__be32 addr;
	__be16 port;
	__u16 zero;
};

/* What the first packet of a connection says. */
struct handshake {
	__u64 netns;
	__be32 saddr;
	__be32 daddr;
	__u16 sport; /* host order, like dport */
	__u16 dport;
	__u32 isn;
};

/* Who may listen at the doors, and whether all processes are captured. */
struct settings {
	__u64 start;    /* of the agent's process, in clock ticks since boot */
	__u32 pid;      /* its id */
	__u32 everyone; /* else those in the chosen cgroups */
};

/* On the caller's socket, from connect(2) to the first packet. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, struct record);
} connecting SEC(".maps");

/* From the first packet to the last of three. Those that never come to that
 * make room for others when there is need. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct handshake);
	__type(value, struct record);
} handshakes SEC(".maps");

/* On the door's socket, for as long as that lives. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, struct record);
} accepted SEC(".maps");

/* The agent's listening sockets themselves, by network namespace. The kernel
 * takes one out when it closes, however its process ends. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 16384);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u64);
	__type(value, __u32);
} listeners SEC(".maps");

/* Where the agent listens, or will listen again, by network namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u64);
	__type(value, struct endpoint);
} doors SEC(".maps");

/* Which addresses are captured, or noted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct endpoint);
	__type(value, __u32);
} targets SEC(".maps");

/* The chosen cgroups, by a hash of their path: each name, padded with zeros to
 * CGROUP_NAME bytes, goes in as FNV-1a has it, but by eight bytes. By path, so
 * that one that is removed and made anew is still chosen. Who makes a path with
 * the hash of a chosen one is captured too, and gains nothing by it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u64);
	__type(value, __u8);
} chosen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct settings);
} setting SEC(".maps");

/* The kernel runs the programs with its own threads too: a further path of a
 * multipath connection, a filesystem that is mounted. They are nobody's. */
static __always_inline bool of_process(struct task_struct *t)
{
	return !(BPF_CORE_READ(t, flags) & PF_KTHREAD);
}

static __always_inline bool describe(struct record *r, __u64 netns)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();

	r->start_ns = BPF_CORE_READ(t, group_leader, start_boottime);
	r->cgroup = BPF_CORE_READ(t, cgroups, dfl_cgrp, kn, id);
	r->netns = netns;
	r->inode = BPF_CORE_READ(t, mm, exe_file, f_inode, i_ino);
	r->dev = BPF_CORE_READ(t, mm, exe_file, f_inode, i_sb, s_dev);
	r->pid = BPF_CORE_READ(t, tgid);
	r->uid = BPF_CORE_READ(t, cred, euid.val);
	r->gid = BPF_CORE_READ(t, cred, egid.val);
	return of_process(t) && r->start_ns && r->inode && r->pid;
}

/* Writes on the socket who connects it. */
static __always_inline bool note(struct bpf_sock_addr *ctx, __u64 netns)
{
	struct record r = {};

	return ctx->sk && describe(&r, netns) &&
	       bpf_sk_storage_get(&connecting, ctx->sk, &r, BPF_SK_STORAGE_GET_F_CREATE);
}

#define FNV_BASIS 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

/* Whether a cgroup (its address) or one above it was chosen. One that lies too
 * deep to say is taken for chosen. Not static: so it is verified once, not at
 * every call. */
__noinline int below_chosen(__u64 address)
{
	struct cgroup *c = (struct cgroup *)address;
	const char *names[CGROUP_DEPTH] = {};
	struct cgroup_subsys_state *css = &c->self;
	struct cgroup_subsys_state *parent = 0;
	__u64 hash = FNV_BASIS;
	__u64 name[CGROUP_NAME / 8];
	int n = 0;

	if (!c)
		return true;
#pragma unroll
	for (int i = 0; i < CGROUP_DEPTH; i++) {
		parent = BPF_CORE_READ(css, parent);
		if (!parent)
			break;
		names[i] = BPF_CORE_READ(css, cgroup, kn, name);
		css = parent;
		n = i + 1;
	}
	if (parent && BPF_CORE_READ(parent, parent))
		return true;
#pragma unroll
	for (int i = CGROUP_DEPTH - 1; i >= 0; i--) {
		if (i >= n)
			continue;
		__builtin_memset(name, 0, sizeof(name));
		bpf_probe_read_kernel_str(name, sizeof(name), names[i]);
#pragma clang loop unroll(disable)
		for (int k = 0; k < CGROUP_NAME / 8; k++)
			hash = (hash ^ name[k]) * FNV_PRIME;
		if (bpf_map_lookup_elem(&chosen, &hash))
			return true;
	}
	return false;
}

/* Whether whoever connects is to be captured: the process is in a chosen
 * cgroup, or the socket was made in one. The kernel itself goes by the socket
 * alone; going by both, neither moving the process nor handing it a socket from
 * elsewhere makes a way out. Of datagrams only the process counts. */
static __always_inline bool captured(struct bpf_sock_addr *ctx, struct settings *s)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct tcp_sock *sk;

	if (s->everyone)
		return true;
	if (below_chosen((__u64)BPF_CORE_READ(t, cgroups, dfl_cgrp)))
		return true;
	sk = bpf_skc_to_tcp_sock(ctx->sk);
	return sk && below_chosen((__u64)BPF_CORE_READ((struct sock *)sk, sk_cgrp_data.cgroup));
}

/* Whether the agent listens at the door. */
static __always_inline bool listening(__u64 netns, struct endpoint *door)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &netns);
	bool there;

	if (!sk)
		return false;
	there = sk->state == TCP_LISTEN && sk->src_ip4 == door->addr && bpf_htons(sk->src_port) == door->port;
	bpf_sk_release(sk);
	return there;
}

static __always_inline bool is_tcp(struct bpf_sock_addr *ctx)
{
	return ctx->type == SOCK_STREAM && ctx->protocol == IPPROTO_TCP;
}

static __always_inline struct settings *settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&setting, &zero);
}

/* Decides about a connect(2) to *to, and changes that if it goes to the door. */
static __always_inline int decide(struct bpf_sock_addr *ctx, struct endpoint *to)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct endpoint *door = bpf_map_lookup_elem(&doors, &netns);
	__u32 *target = bpf_map_lookup_elem(&targets, to);
	bool direct = door && to->addr == door->addr && to->port == door->port;
	bool sent = target && *target == SEND;
	struct settings *s = settings();

	if (!target && !direct)
		return ALLOW;
	if (!s || !ctx->sk)
		return REFUSE;
	if (!is_tcp(ctx))
		return sent && captured(ctx, s) ? REFUSE : ALLOW;
	if (!sent && !direct)
		return note(ctx, netns) ? ALLOW : REFUSE;
	if (!captured(ctx, s))
		return direct ? REFUSE : ALLOW;
	/* Bound to an interface, it would not come to loopback. */
	if (!door || (ctx->sk->bound_dev_if && ctx->sk->bound_dev_if != LOOPBACK_IFINDEX))
		return REFUSE;
	if (!listening(netns, door) || !note(ctx, netns))
		return REFUSE;
	*to = *door;
	return ALLOW;
}

/* Takes away what an earlier connect(2) of this socket left: it may be another
 * process's by now. */
static __always_inline void forget(struct bpf_sock_addr *ctx)
{
	if (ctx->sk)
		bpf_sk_storage_delete(&connecting, ctx->sk);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct endpoint to = {.addr = ctx->user_ip4, .port = ctx->user_port};
	int verdict;

	forget(ctx);
	verdict = decide(ctx, &to);
	if (verdict == ALLOW) {
		ctx->user_ip4 = to.addr;
		ctx->user_port = to.port;
	}
	return verdict;
}

/* An IPv4 address in IPv6's clothes, ::ffff:a.b.c.d. */
static __always_inline bool mapped(struct bpf_sock_addr *ctx)
{
	return ctx->user_ip6[0] == 0 && ctx->user_ip6[1] == 0 && ctx->user_ip6[2] == bpf_htonl(0xffff);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct endpoint to = {.port = ctx->user_port};
	int verdict;

	forget(ctx);
	if (!mapped(ctx))
		return ALLOW;
	to.addr = ctx->user_ip6[3];
	verdict = decide(ctx, &to);
	if (verdict == ALLOW) {
		ctx->user_ip6[3] = to.addr;
		ctx->user_port = to.port;
	}
	return verdict;
}

/* Datagrams to a captured address are nobody's business there. */
static __always_inline int datagram(struct bpf_sock_addr *ctx, __be32 addr)
{
	struct endpoint to = {.addr = addr, .port = ctx->user_port};
	__u32 *target = bpf_map_lookup_elem(&targets, &to);
	struct settings *s = settings();

	if (!target || *target != SEND)
		return ALLOW;
	return !s || !ctx->sk || captured(ctx, s) ? REFUSE : ALLOW;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return datagram(ctx, ctx->user_ip4);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return mapped(ctx) ? datagram(ctx, ctx->user_ip6[3]) : ALLOW;
}

/* Only the agent may bind the door's address. addr is 0 for all addresses. */
static __always_inline int bind_door(struct bpf_sock_addr *ctx, __be32 addr)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct endpoint *door = bpf_map_lookup_elem(&doors, &netns);
	struct settings *s = settings();

	if (!is_tcp(ctx) || !door || (__be16)ctx->user_port != door->port || (addr && addr != door->addr))
		return ALLOW;
	if (!s || (__u32)BPF_CORE_READ(t, tgid) != s->pid || BPF_CORE_READ(t, group_leader, start_boottime) / TICK_NS != s->start)
		return REFUSE;
	return ALLOW;
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	return bind_door(ctx, ctx->user_ip4);
}

SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	if (mapped(ctx))
		return bind_door(ctx, ctx->user_ip6[3]);
	if (ctx->user_ip6[0] | ctx->user_ip6[1] | ctx->user_ip6[2] | ctx->user_ip6[3])
		return ALLOW;
	return bind_door(ctx, 0);
}

/* The first packet is about to leave: the record goes where the door's side
 * finds it. */
static __always_inline void hand_out(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct record *r = bpf_sk_storage_get(&connecting, sk, 0, 0);
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct handshake key = {};
	struct record out;

	if (!r || !tp)
		return;
	out = *r;
	key.netns = out.netns;
	key.saddr = ctx->local_ip4;
	key.daddr = ctx->remote_ip4;
	key.sport = ctx->local_port;
	key.dport = bpf_ntohl(ctx->remote_port);
	key.isn = BPF_CORE_READ(tp, write_seq);
	bpf_map_update_elem(&handshakes, &key, &out, BPF_ANY);
	bpf_sk_storage_delete(&connecting, sk);
}

/* The last of three packets has come: the record goes onto the door's socket,
 * before anybody can accept that. */
static __always_inline void take_over(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct handshake key = {};
	struct record *r;
	struct record in;

	key.netns = bpf_get_netns_cookie(ctx);
	key.saddr = ctx->remote_ip4;
	key.daddr = ctx->local_ip4;
	key.sport = bpf_ntohl(ctx->remote_port);
	key.dport = ctx->local_port;
	key.isn = ctx->rcv_nxt - 1;
	r = bpf_map_lookup_elem(&handshakes, &key);
	if (!r)
		return;
	in = *r;
	bpf_map_delete_elem(&handshakes, &key);
	bpf_sk_storage_get(&accepted, sk, &in, BPF_SK_STORAGE_GET_F_CREATE);
}

SEC("sockops")
int handshaking(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk || !ctx->is_fullsock)
		return 1;
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		hand_out(ctx, sk);
	else if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		take_over(ctx, sk);
	return 1;
}
