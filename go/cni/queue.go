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
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"github.com/containerd/go-cni/internal/workload"
)

const (
	// queueVersion is that of the files' content.
	queueVersion = 1
	// queueFileBytes is more than any file of ours has, as in crates/queue.
	queueFileBytes = 512 << 10
	// queueTurn is how long somebody else's turn is waited for: one that is frozen with it is not.
	queueTurn = 2 * time.Second
	// queueNamespaces wait for one key at most, as in crates/queue.
	queueNamespaces = 16
	// namespacePathBytes is what a namespace's path has at most (proto/).
	namespacePathBytes = 4095
)

// deletion is what the daemon is to detach when it is there again. It reads the folder when it starts, before it serves.
// The form is shared with workloadnet-cni: one file for each key, so that a deletion which comes again takes no more room.
type deletion struct {
	Version    int    `json:"version"`
	Owner      string `json:"owner"`
	WorkloadID string `json:"workload_id"`
	IfName     string `json:"if_name"`
	NetnsPath  string `json:"netns_path"`
	// FurtherNetnsPaths are of later deletions: all were told that theirs will be done.
	FurtherNetnsPaths []string `json:"further_netns_paths,omitempty"`
}

func deletionOf(key *workload.DetachRequest) deletion {
	return deletion{
		Version: queueVersion, Owner: key.GetOwner(), WorkloadID: key.GetWorkloadId(),
		IfName: key.GetNetns().GetIfName(), NetnsPath: key.GetNetns().GetNetnsPath(),
	}
}

// paths are the namespaces; an empty one means any.
func (d deletion) paths() []string { return append([]string{d.NetnsPath}, d.FurtherNetnsPaths...) }

// requests are one for each namespace.
func (d deletion) requests() []*workload.DetachRequest {
	var all []*workload.DetachRequest
	for _, path := range d.paths() {
		all = append(all, &workload.DetachRequest{
			WorkloadId: d.WorkloadID, Owner: d.Owner,
			Netns: &workload.NetNSAttachment{NetnsPath: path, IfName: d.IfName},
		})
	}
	return all
}

// and is what this and one that waits for the same key ask for together.
func (d deletion) and(waiting deletion) (deletion, error) {
	if d.NetnsPath == "" || waiting.NetnsPath == "" {
		d.NetnsPath, d.FurtherNetnsPaths = "", nil
		return d, nil
	}
	if !slices.Contains(waiting.paths(), d.NetnsPath) {
		waiting.FurtherNetnsPaths = append(slices.Clone(waiting.FurtherNetnsPaths), d.NetnsPath)
	}
	if len(waiting.paths()) > queueNamespaces {
		return d, fmt.Errorf("deletions of %d namespaces wait for this key already", queueNamespaces)
	}
	return waiting, nil
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
	// The daemon's own folder, for a daemon that has never run since the machine started.
	if err := os.MkdirAll(filepath.Dir(q.folder), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(q.folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	turn, err := q.turn()
	if err != nil {
		return err
	}
	defer turn.Close()
	found, err := q.find(d)
	if err != nil {
		return err
	}
	if found != nil {
		if d, err = d.and(found.deletion); err != nil {
			return err
		}
	}
	content, err := json.Marshal(d)
	if err != nil {
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

// turn is had by whoever reads what waits and replaces or removes it: flock(2) of the folder, until it is closed.
func (q queue) turn() (*os.File, error) {
	folder, err := os.Open(q.folder)
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return folder, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Since(began) >= queueTurn {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", q.folder, err), folder.Close())
		}
	}
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

// find is the one of a key, if one waits. What is none of ours is none: the daemon says so when it starts. That a file
// cannot be read for now is an error, and says nothing of what waits.
func (q queue) find(key deletion) (*waiting, error) {
	content, err := q.content(key.name())
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || !errors.As(err, new(syscall.Errno)) {
			return nil, nil
		}
		return nil, err
	}
	found := &waiting{content: content}
	if json.Unmarshal(content, &found.deletion) != nil || found.Version != queueVersion || found.name() != key.name() ||
		len(found.paths()) > queueNamespaces {
		return nil, nil
	}
	return found, nil
}

// content is a file's. It is looked at before it is opened: opening a pipe waits for whoever writes into it.
func (q queue) content(name string) ([]byte, error) {
	path := filepath.Join(q.folder, name)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, queueFileBytes+1))
	if err == nil && len(content) > queueFileBytes {
		err = fmt.Errorf("%s has more than %d bytes", path, queueFileBytes)
	}
	return content, err
}

// remove takes away what was carried out, unless another has taken its place.
func (q queue) remove(done *waiting) error {
	turn, err := q.turn()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer turn.Close()
	content, err := q.content(done.name())
	if err == nil && bytes.Equal(content, done.content) {
		err = os.Remove(filepath.Join(q.folder, done.name()))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// settle carries out the deletion of a key that waits, so that it cannot come over a later attachment of the same key.
func (d *daemon) settle(ctx context.Context, bears patience, key deletion) error {
	found, err := d.queue().find(key)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) {
		// Where this user may not look, it has left nothing either.
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the deletions that wait in %s: %w", d.queue().folder, err)
	}
	if found == nil {
		return nil
	}
	for _, request := range found.requests() {
		if err := d.detach(ctx, bears, request); err != nil {
			return fmt.Errorf("carry out the deletion that waits in %s: %w", d.queue().folder, err)
		}
	}
	return d.queue().remove(found)
}

// detach sends a Detach. What is not there, and what never can have been, is a success: a deletion that fails is repeated
// for ever.
func (d *daemon) detach(ctx context.Context, bears patience, key *workload.DetachRequest) error {
	if !canBeAttached(key) {
		return nil
	}
	err := d.ask(ctx, bears, func(ctx context.Context) error {
		_, err := d.workloads.Detach(ctx, key)
		return err
	})
	if refused := asError(err); refused != nil &&
		(refused.Code == codes.NotFound || refused.Code == codes.InvalidArgument) {
		return nil
	}
	return err
}

// canBeAttached says whether anything can have been attached by this key and path. An order for what cannot is not worth
// asking anybody, nor a file. Protobuf has no words for what is not UTF-8; the daemon takes no other paths (proto/).
func canBeAttached(key *workload.DetachRequest) bool {
	path := key.GetNetns().GetNetnsPath()
	for _, text := range []string{key.GetWorkloadId(), key.GetOwner(), key.GetNetns().GetIfName(), path} {
		if !utf8.ValidString(text) {
			return false
		}
	}
	if key.GetWorkloadId() == "" {
		return false
	}
	return path == "" || (filepath.IsAbs(path) && !strings.ContainsRune(path, 0) && len(path) <= namespacePathBytes)
}
