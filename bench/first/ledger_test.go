package main

import (
	"net/netip"
	"testing"
)

func small() *ledger {
	return newLedger([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/30"), netip.MustParsePrefix("fd00::/64")})
}

func TestAnAddressHasOneHolderUntilItIsGivenBack(t *testing.T) {
	ledger := small()
	name, first, err := ledger.take("a")
	if err != nil || first[0].String() != "10.0.0.1" || first[1].String() != "fd00::1" {
		t.Fatalf("%v, %v", first, err)
	}
	if other, second, err := ledger.take("b"); err != nil || second[0] == first[0] || other == name {
		t.Fatalf("%s, %v, %v", other, second, err)
	}
	ledger.give("a")
	if _, known := ledger.link("a"); known {
		t.Error("its link is known although it was given back")
	}
	if _, third, err := ledger.take("c"); err != nil || third[0] != first[0] {
		t.Fatalf("%v, %v", third, err)
	}
}

func TestWhatCannotBeGivenIsRefused(t *testing.T) {
	ledger := small()
	for _, id := range []string{"a", "b", "c"} {
		if _, _, err := ledger.take(id); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := ledger.take("a"); err == nil {
		t.Error("a was attached twice")
	}
	if _, addresses, err := ledger.take("d"); err == nil {
		t.Errorf("%v is beyond the prefix", addresses)
	}
}
