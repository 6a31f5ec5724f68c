/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What capture.bpf.c needs to know of the kernel, and no more: so that no
 * header of some machine's kernel is needed to build it, and so that a reader
 * sees at a glance what of the kernel is looked at.
 *
 * The first part is the kernel's interface, which never changes. The second
 * part is its insides: only names and types count there, for where a member is
 * in the running kernel is found out when the programs are loaded (CO-RE).
 */
#ifndef INNATE_KERNEL_H
#define INNATE_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u16 __sum16;
typedef __u32 __wsum;
typedef _Bool bool;
#define true 1
#define false 0

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

/* The interface (include/uapi/linux). */

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_SOCKHASH = 18,
	BPF_MAP_TYPE_SK_STORAGE = 24,

	BPF_ANY = 0,
	BPF_F_NO_PREALLOC = 1,
	BPF_SK_STORAGE_GET_F_CREATE = 1,

	BPF_SOCK_OPS_TCP_CONNECT_CB = 3,
	BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB = 5,

	SOCK_STREAM = 1,
	IPPROTO_TCP = 6,
	TCP_LISTEN = 10,
};

struct bpf_sock {
	__u32 bound_dev_if;
	__u32 unused1[5]; /* family to priority */
	__u32 src_ip4;    /* network order */
	__u32 src_ip6[4];
	__u32 src_port; /* host order */
	__u32 unused2[6]; /* dst_port to dst_ip6 */
	__u32 state;
};

struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4;    /* network order */
	__u32 user_ip6[4]; /* network order */
	__u32 user_port;   /* network order, 16 bits */
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 msg_src_ip4;
	__u32 msg_src_ip6[4];
	struct bpf_sock *sk __attribute__((aligned(8)));
};

struct bpf_sock_ops {
	__u32 op;
	__u32 args[4];
	__u32 family;
	__u32 remote_ip4; /* network order */
	__u32 local_ip4;  /* network order */
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port; /* network order, in 32 bits */
	__u32 local_port;  /* host order */
	__u32 is_fullsock;
	__u32 unused1[6]; /* snd_cwnd to snd_ssthresh */
	__u32 rcv_nxt;
	__u32 unused2[15]; /* snd_nxt to sacked_out */
	__u32 sk_txhash;
	__u64 bytes_received;
	__u64 bytes_acked;
	struct bpf_sock *sk __attribute__((aligned(8)));
};

/* The insides. */

#define PF_KTHREAD 0x00200000

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct super_block {
	__u32 s_dev;
};

struct inode {
	unsigned long i_ino;
	struct super_block *i_sb;
};

struct file {
	struct inode *f_inode;
};

struct mm_struct {
	struct file *exe_file;
};

typedef struct {
	__u32 val;
} kuid_t;

typedef struct {
	__u32 val;
} kgid_t;

struct cred {
	kuid_t euid;
	kgid_t egid;
};

struct kernfs_node {
	const char *name;
	__u64 id;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct {
	unsigned int flags;
	int tgid;
	struct task_struct *group_leader;
	__u64 start_boottime;
	const struct cred *cred;
	struct mm_struct *mm;
	struct css_set *cgroups;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct sock {
	struct sock_cgroup_data sk_cgrp_data;
};

struct tcp_sock {
	__u32 write_seq;
};

#pragma clang attribute pop

#endif
