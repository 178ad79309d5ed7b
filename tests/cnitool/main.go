// A driver on the real libcni, as runtimes have it: one verb for one network and one container.
//
//	cnitool VERB NETWORK [CONTAINER NETNS]
//
// The environment's CNI_PATH names folders of plugins, NETCONFPATH the folder of networks, CACHE_DIR libcni's cache, and
// CAP_ARGS capability arguments as JSON. GC keeps the container, if one is named.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

const ifName = "eth0"

func main() {
	if err := run(os.Args[1:]); err != nil {
		var told *types.Error
		if errors.As(err, &told) {
			fmt.Fprintf(os.Stderr, "code %d: %s\n", told.Code, told.Msg)
		} else {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 && len(args) != 4 {
		return errors.New("usage: cnitool VERB NETWORK [CONTAINER NETNS]")
	}
	networks, err := libcni.LoadConfList(os.Getenv("NETCONFPATH"), args[1])
	if err != nil {
		return err
	}
	cni := libcni.NewCNIConfigWithCacheDir(filepath.SplitList(os.Getenv("CNI_PATH")), os.Getenv("CACHE_DIR"), nil)
	var of libcni.RuntimeConf
	var valid []types.GCAttachment
	if len(args) == 4 {
		of = libcni.RuntimeConf{ContainerID: args[2], NetNS: args[3], IfName: ifName}
		valid = append(valid, types.GCAttachment{ContainerID: args[2], IfName: ifName})
	}
	if text := os.Getenv("CAP_ARGS"); text != "" {
		if err := json.Unmarshal([]byte(text), &of.CapabilityArgs); err != nil {
			return fmt.Errorf("CAP_ARGS: %w", err)
		}
	}
	ctx := context.Background()
	switch args[0] {
	case "ADD":
		result, err := cni.AddNetworkList(ctx, networks, &of)
		if err != nil {
			return err
		}
		return result.Print()
	case "CHECK":
		return cni.CheckNetworkList(ctx, networks, &of)
	case "DEL":
		return cni.DelNetworkList(ctx, networks, &of)
	case "STATUS":
		return cni.GetStatusNetworkList(ctx, networks)
	case "GC":
		return cni.GCNetworkList(ctx, networks, &libcni.GCArgs{ValidAttachments: valid})
	default:
		return fmt.Errorf("there is no verb %q", args[0])
	}
}
