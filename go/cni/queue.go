package cni

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/containerd/go-cni/internal/workload"
)

// queueVersion is that of the files' content.
const queueVersion = 1

// deletion is what the daemon is to detach when it is there again. It reads the folder when it starts, before it serves.
// The form is shared with workloadnet-cni: one file for each key, so that a deletion which comes again takes no more room.
type deletion struct {
	Version    int    `json:"version"`
	Owner      string `json:"owner"`
	WorkloadID string `json:"workload_id"`
	IfName     string `json:"if_name"`
	NetnsPath  string `json:"netns_path"`
}

func deletionOf(key *workload.DetachRequest) deletion {
	return deletion{
		Version: queueVersion, Owner: key.GetOwner(), WorkloadID: key.GetWorkloadId(),
		IfName: key.GetNetns().GetIfName(), NetnsPath: key.GetNetns().GetNetnsPath(),
	}
}

func (d deletion) request() *workload.DetachRequest {
	return &workload.DetachRequest{
		WorkloadId: d.WorkloadID, Owner: d.Owner,
		Netns: &workload.NetNSAttachment{NetnsPath: d.NetnsPath, IfName: d.IfName},
	}
}

// name is the file's: lengths first, so that no two keys have the same bytes.
func (d deletion) name() string {
	var key []byte
	for _, part := range []string{d.Owner, d.WorkloadID, d.IfName} {
		key = binary.BigEndian.AppendUint64(key, uint64(len(part)))
		key = append(key, part...)
	}
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:16])
}

// queue is the folder beside a socket.
type queue struct{ folder string }

func (d *daemon) queue() queue { return queue{folder: filepath.Join(filepath.Dir(d.socket), "queue")} }

// put writes a deletion down so that it outlives a crash of the machine in any instant: all of it, or nothing.
func (q queue) put(d deletion) (err error) {
	content, err := json.Marshal(d)
	if err != nil {
		return err
	}
	// The daemon's own folder, for a daemon that has never run since the machine started.
	if err := os.MkdirAll(filepath.Dir(q.folder), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(q.folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// CreateTemp makes it with mode 0600.
	file, err := os.CreateTemp(q.folder, "."+d.name()+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	_, err = file.Write(content)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), filepath.Join(q.folder, d.name())); err != nil {
		return err
	}
	return q.sync()
}

func (q queue) sync() error {
	folder, err := os.Open(q.folder)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// waiting is a deletion that is written down, and its bytes.
type waiting struct {
	deletion
	content []byte
}

// find is the one of a key, if one waits. What cannot be read is none: the daemon says so when it starts.
func (q queue) find(key deletion) *waiting {
	content, err := os.ReadFile(filepath.Join(q.folder, key.name()))
	if err != nil {
		return nil
	}
	found := &waiting{content: content}
	if json.Unmarshal(content, &found.deletion) != nil || found.Version != queueVersion || found.name() != key.name() {
		return nil
	}
	return found
}

// remove takes away what was carried out, unless another has taken its place.
func (q queue) remove(done *waiting) error {
	path := filepath.Join(q.folder, done.name())
	content, err := os.ReadFile(path)
	if err == nil && bytes.Equal(content, done.content) {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// settle carries out the deletion of a key that waits, so that it cannot come over a later attachment of the same key.
func (d *daemon) settle(ctx context.Context, bears patience, key deletion) error {
	found := d.queue().find(key)
	if found == nil {
		return nil
	}
	if err := d.detach(ctx, bears, found.request()); err != nil {
		return fmt.Errorf("carry out the deletion that waits in %s: %w", d.queue().folder, err)
	}
	return d.queue().remove(found)
}

// detach sends a Detach. What is not there, and what never can have been, is a success.
func (d *daemon) detach(ctx context.Context, bears patience, key *workload.DetachRequest) error {
	// Protobuf has no words for such an id, so none can have been attached.
	if !utf8.ValidString(key.GetWorkloadId()) || !utf8.ValidString(key.GetOwner()) {
		return nil
	}
	err := d.ask(ctx, bears, func(ctx context.Context) error {
		_, err := d.workloads.Detach(ctx, key)
		return err
	})
	if refused := asError(err); refused != nil && (IsNotFound(refused) || isNoKey(refused)) {
		return nil
	}
	return err
}

// isNoKey says whether the key itself was refused: then nothing can be attached under it.
func isNoKey(refused *Error) bool {
	if !IsInvalidConfig(refused) {
		return false
	}
	switch refused.Field {
	case "owner", "workload_id", "netns.if_name":
		return true
	}
	return false
}
