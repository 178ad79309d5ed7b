package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestTheResultIsThatOfGoCNI(t *testing.T) {
	f := newFake(t)
	result, err := f.cni(t).Setup(context.Background(), "pod-1", path,
		WithCapabilityDNS(DNS{Servers: []string{"10.96.0.10"}, Searches: []string{"shop.svc"}, Options: []string{"ndots:5"}}))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "result.json", result)
	golden(t, "raw.json", result.Raw())

	again, err := f.cni(t).SetupSerially(context.Background(), "pod-1", path,
		WithCapabilityDNS(DNS{Servers: []string{"10.96.0.10"}, Searches: []string{"shop.svc"}, Options: []string{"ndots:5"}}))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "result.json", again)

	// containerd keeps the JSON over its restarts.
	var kept Result
	if err := json.Unmarshal(marshal(t, result), &kept); err != nil {
		t.Fatal(err)
	}
	golden(t, "result.json", &kept)
}

func golden(t *testing.T, name string, value any) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, marshal(t, value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expected, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if found := marshal(t, value); !bytes.Equal(found, expected) {
		t.Errorf("%s is not\n%s", file, found)
	}
}

func marshal(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

func TestAResultWithGapsIsInvalid(t *testing.T) {
	c := newFake(t).cni(t).(*instance)
	for name, raw := range map[string]*types100.Result{
		"result":    nil,
		"interface": {Interfaces: []*types100.Interface{nil}},
		"address":   {IPs: []*types100.IPConfig{nil}},
		"index":     {IPs: []*types100.IPConfig{{Interface: types100.Int(0)}}},
	} {
		if _, err := c.GetCNIResultFromResults([]*types100.Result{raw}); !IsInvalidResult(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
