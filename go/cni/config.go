package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// PluginType is the type of an entry in a network's configuration whose fields this package reads: "socket", "owner" and
// "mtu". It is workloadnet-cni's, so that one file serves both.
const PluginType = "workloadnet-cni"

// ConfigResult is an instance's configuration. Directories are as they were given; nothing is read from them.
type ConfigResult struct {
	PluginDirs       []string
	PluginConfDir    string
	PluginMaxConfNum int
	Prefix           string
	Networks         []*ConfNetwork
}

// ConfNetwork is a network, and the interface that a workload gets for it.
type ConfNetwork struct {
	Config *NetworkConfList
	IFName string
}

// NetworkConfList is a network's configuration; Source is its JSON.
type NetworkConfList struct {
	Name       string
	CNIVersion string
	Plugins    []*NetworkConf
	Source     string
}

// NetworkConf is one entry of it; Source is its JSON.
type NetworkConf struct {
	Network *types.NetConf
	Source  string
}

// ours is what an entry of our type says.
type ours struct {
	Socket string  `json:"socket,omitempty"`
	Owner  *string `json:"owner,omitempty"`
	MTU    uint32  `json:"mtu,omitempty"`
}

// parseConf reads an entry that stands alone, and makes a list of it, as go-cni does.
func parseConf(source []byte) (*NetworkConfList, error) {
	entry, err := parseEntry(source)
	if err != nil {
		return nil, err
	}
	list, err := json.Marshal(confList{
		CNIVersion: entry.Network.CNIVersion, Name: entry.Network.Name, Plugins: []json.RawMessage{source},
	})
	return &NetworkConfList{
		Name: entry.Network.Name, CNIVersion: entry.Network.CNIVersion,
		Plugins: []*NetworkConf{entry}, Source: string(list),
	}, err
}

// confList is a list's JSON.
type confList struct {
	CNIVersion string            `json:"cniVersion"`
	Name       string            `json:"name"`
	Plugins    []json.RawMessage `json:"plugins"`
}

// parseList reads a list of entries.
func parseList(source []byte) (*NetworkConfList, error) {
	var list confList
	if err := json.Unmarshal(source, &list); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidConfig, err)
	}
	if list.Name == "" {
		return nil, fmt.Errorf("%w: the list has no name", ErrInvalidConfig)
	}
	if len(list.Plugins) == 0 {
		return nil, fmt.Errorf("%w: the list %s has no plugins", ErrInvalidConfig, list.Name)
	}
	parsed := &NetworkConfList{Name: list.Name, CNIVersion: list.CNIVersion, Source: string(source)}
	for _, plugin := range list.Plugins {
		entry, err := parseEntry(plugin)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", list.Name, err)
		}
		parsed.Plugins = append(parsed.Plugins, entry)
	}
	return parsed, nil
}

func parseEntry(source []byte) (*NetworkConf, error) {
	entry := &types.NetConf{}
	if err := json.Unmarshal(source, entry); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidConfig, err)
	}
	if entry.Type == "" {
		return nil, fmt.Errorf("%w: an entry has no type", ErrInvalidConfig)
	}
	return &NetworkConf{Network: entry, Source: string(source)}, nil
}

// readFile reads a file that was named.
func readFile(name string, parse func([]byte) (*NetworkConfList, error)) (*NetworkConfList, error) {
	source, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRead, err)
	}
	parsed, err := parse(source)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return parsed, nil
}

// ours is what the first entry of our type says.
func (l *NetworkConfList) ours() (ours, error) {
	for _, entry := range l.Plugins {
		if entry.Network.Type == PluginType {
			var found ours
			if err := json.Unmarshal([]byte(entry.Source), &found); err != nil {
				return ours{}, fmt.Errorf("%w: network %s: %w", ErrInvalidConfig, l.Name, err)
			}
			return found, nil
		}
	}
	return ours{}, nil
}

// isUnchecked says whether a list forbids that it is checked (CNI's SPEC.md, disableCheck), as truth or as a text.
func (l *NetworkConfList) isUnchecked() bool {
	var list struct {
		DisableCheck any `json:"disableCheck"`
	}
	_ = json.Unmarshal([]byte(l.Source), &list)
	return list.DisableCheck == true || list.DisableCheck == "true"
}

// madeUp is the configuration of a network that none was given for: one that says what is done.
func madeUp(name, pluginType string, says ours) (*NetworkConfList, error) {
	head := types.NetConf{CNIVersion: types100.ImplementedSpecVersion, Name: name, Type: pluginType}
	entry, err := json.Marshal(struct {
		Type string `json:"type"`
		ours
	}{pluginType, says})
	list, err2 := json.Marshal(confList{CNIVersion: head.CNIVersion, Name: name, Plugins: []json.RawMessage{entry}})
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	return &NetworkConfList{
		Name: name, CNIVersion: head.CNIVersion, Source: string(list),
		Plugins: []*NetworkConf{{Network: &head, Source: string(entry)}},
	}, nil
}

// copied is for callers to do with as they like.
func (l *NetworkConfList) copied() *NetworkConfList {
	made := *l
	made.Plugins = nil
	for _, entry := range l.Plugins {
		head := *entry.Network
		made.Plugins = append(made.Plugins, &NetworkConf{Network: &head, Source: entry.Source})
	}
	return &made
}
