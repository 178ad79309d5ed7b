// SPDX-License-Identifier: Apache-2.0
//
// A trial, no part of the product: packets between workloads of one node, and between a workload and the uplink, past the
// host's stack. `cargo xtask bench path` compiles it and puts it beside plain routing.
//
//   from_workload   ingress of a host end: the source has to be the workload's own (address and MAC); to another workload
//                   by bpf_redirect_peer, to the world by bpf_redirect_neigh where no address is translated
//   from_uplink     ingress of the uplink: to a workload by bpf_redirect_peer
//
// Whatever is not plainly one of these goes to the host's stack, whose rules decide as ever. Both families; no fragments'
// tracking is needed, because nothing above the IP header is looked at.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// An address of either family; IPv4 as ::ffff:a.b.c.d.
struct address {
	__u32 word[4];
};

struct workload {
	__u32 host_end;
	__u8 host_mac[ETH_ALEN];
	__u8 mac[ETH_ALEN];
};

struct sender {
	struct address address[2];
	__u8 mac[ETH_ALEN];
	__u8 unused[2];
};

// Indexes of `counters`.
enum { PEER, NEIGH, STACK, FORGED, COUNTERS };

// Where each address of a workload is.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct address);
	__type(value, struct workload);
} workloads SEC(".maps");

// What may come in over a host end, by its index.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 15);
	__type(key, __u32);
	__type(value, struct sender);
} senders SEC(".maps");

// The uplink's index; 0: packets to the world are the host stack's, because it translates their addresses.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} uplink SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline int counted(__u32 what, int verdict)
{
	__u64 *count = bpf_map_lookup_elem(&counters, &what);

	if (count)
		*count += 1;
	return verdict;
}

static __always_inline void mapped(struct address *to, __u32 v4)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = bpf_htonl(0xffff);
	to->word[3] = v4;
}

static __always_inline int same(const struct address *a, const struct address *b)
{
	return ((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) | (a->word[2] ^ b->word[2]) |
		(a->word[3] ^ b->word[3])) == 0;
}

// Two MACs.
static __always_inline int differ(const __u8 *a, const __u8 *b)
{
	__u8 found = 0;

	for (int n = 0; n < ETH_ALEN; n++)
		found |= a[n] ^ b[n];
	return found;
}

// Source and destination; 0 where it is no packet that a host may simply pass on.
static __always_inline int addresses(struct __sk_buff *skb, struct address *from, struct address *to)
{
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = (void *)(long)skb->data;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		// Options and a hop limit that ends here are the stack's.
		if ((void *)(ip + 1) > end || ip->ihl != 5 || ip->ttl <= 1)
			return 0;
		mapped(from, ip->saddr);
		mapped(to, ip->daddr);
		return 1;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->hop_limit <= 1 || ip->nexthdr == IPPROTO_HOPOPTS)
			return 0;
		__builtin_memcpy(from, &ip->saddr, sizeof(*from));
		__builtin_memcpy(to, &ip->daddr, sizeof(*to));
		return 1;
	}
	return 0;
}

// What a router does to a packet that it passes on.
static __always_inline int routed(struct __sk_buff *skb)
{
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = (void *)(long)skb->data;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		__u32 sum;

		if ((void *)(ip + 1) > end)
			return 0;
		// RFC 1141: one less in the high byte of a word of the header.
		sum = ip->check + bpf_htons(0x0100);
		ip->check = (__u16)(sum + (sum >= 0xffff));
		ip->ttl -= 1;
	} else {
		struct ipv6hdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end)
			return 0;
		ip->hop_limit -= 1;
	}
	return 1;
}

static __always_inline int deliver(struct __sk_buff *skb, const struct workload *to)
{
	struct ethhdr *eth;

	if (!routed(skb))
		return counted(STACK, TC_ACT_OK);
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return counted(STACK, TC_ACT_OK);
	__builtin_memcpy(eth->h_dest, to->mac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, to->host_mac, ETH_ALEN);
	return counted(PEER, bpf_redirect_peer(to->host_end, 0));
}

// Not the host's, nor a group's: link-local, loopback, multicast, broadcast.
static __always_inline int is_special(const struct address *to)
{
	__u32 first = bpf_ntohl(to->word[0]);

	if (first == 0 && to->word[2] == bpf_htonl(0xffff)) {
		__u32 v4 = bpf_ntohl(to->word[3]);

		return v4 >> 28 >= 14 || v4 >> 24 == 127 || v4 >> 16 == 0xa9fe;
	}
	return first >> 22 == 0xfe80 >> 6 || first >> 24 == 0xff || first == 0;
}

SEC("tc/from_workload")
int from_workload(struct __sk_buff *skb)
{
	struct address from, to;
	struct workload *workload;
	struct sender *sender;
	struct ethhdr *eth;
	__u32 index = skb->ifindex, zero = 0, *out;

	if (!addresses(skb, &from, &to))
		return counted(STACK, TC_ACT_OK);
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return counted(STACK, TC_ACT_OK);
	sender = bpf_map_lookup_elem(&senders, &index);
	if (!sender)
		return counted(STACK, TC_ACT_OK);
	// The stack's rules drop it, and count it.
	if ((!same(&from, &sender->address[0]) && !same(&from, &sender->address[1])) ||
	    differ(eth->h_source, sender->mac))
		return counted(FORGED, TC_ACT_OK);
	workload = bpf_map_lookup_elem(&workloads, &to);
	if (workload)
		return deliver(skb, workload);
	out = bpf_map_lookup_elem(&uplink, &zero);
	if (!out || !*out || is_special(&to) || !routed(skb))
		return counted(STACK, TC_ACT_OK);
	return counted(NEIGH, bpf_redirect_neigh(*out, NULL, 0, 0));
}

SEC("tc/from_uplink")
int from_uplink(struct __sk_buff *skb)
{
	struct address from, to;
	struct workload *workload;

	if (!addresses(skb, &from, &to))
		return counted(STACK, TC_ACT_OK);
	workload = bpf_map_lookup_elem(&workloads, &to);
	if (!workload)
		return counted(STACK, TC_ACT_OK);
	return deliver(skb, workload);
}

char LICENSE[] SEC("license") = "Apache-2.0";
