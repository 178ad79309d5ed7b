package main

import (
	"fmt"
	"net/netip"
	"sync"
)

// ledger knows who has which addresses and which link. As in the first version, a free address is looked for from the
// beginning of the prefix each time.
type ledger struct {
	lock    sync.Mutex
	pools   []netip.Prefix
	holders map[netip.Addr]string
	links   map[string]string
	made    int
}

func newLedger(pools []netip.Prefix) *ledger {
	return &ledger{pools: pools, holders: map[netip.Addr]string{}, links: map[string]string{}}
}

// take gives a workload one address of each prefix, and a name for its link.
func (l *ledger) take(id string) (link string, addresses []netip.Addr, err error) {
	l.lock.Lock()
	defer l.lock.Unlock()
	if _, known := l.links[id]; known {
		return "", nil, fmt.Errorf("%s is attached", id)
	}
	for _, pool := range l.pools {
		address := pool.Addr().Next()
		for l.holders[address] != "" {
			address = address.Next()
		}
		if !pool.Contains(address) {
			return "", nil, fmt.Errorf("%s is full", pool)
		}
		addresses = append(addresses, address)
	}
	for _, address := range addresses {
		l.holders[address] = id
	}
	l.made++
	link = fmt.Sprintf("first%d", l.made)
	l.links[id] = link
	return link, addresses, nil
}

// link is the name of a workload's link.
func (l *ledger) link(id string) (string, bool) {
	l.lock.Lock()
	defer l.lock.Unlock()
	name, known := l.links[id]
	return name, known
}

// give frees all that a workload has.
func (l *ledger) give(id string) {
	l.lock.Lock()
	defer l.lock.Unlock()
	delete(l.links, id)
	for address, holder := range l.holders {
		if holder == id {
			delete(l.holders, address)
		}
	}
}
