package cni

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// silent accepts connections and never says a word.
func silent(t *testing.T, socket string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
}

func queued(t *testing.T, f *fake) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(filepath.Dir(f.socket), "queue"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestANameInTheQueueIsAHashOfTheKey(t *testing.T) {
	key := deletion{Version: 1, Owner: "containerd", WorkloadID: "pod-1", IfName: "eth0", NetnsPath: path}
	// printf '\0\0\0\0\0\0\0\012containerd\0\0\0\0\0\0\0\005pod-1\0\0\0\0\0\0\0\004eth0' | sha256sum | cut -c1-32
	if name := key.name(); name != "adae0238162581e2abaf98c26b265849" {
		t.Error(name)
	}
	moved := key
	moved.NetnsPath = ""
	other := deletion{Owner: "containerdp", WorkloadID: "od-1", IfName: "eth0"}
	if moved.name() != key.name() || other.name() == key.name() {
		t.Error("the name is of the key, and of nothing else")
	}
}

func TestADeletionWaitsForADaemonThatIsDown(t *testing.T) {
	f := absentFake(t)
	c := f.cni(t)
	began := time.Now()
	for range 2 {
		if err := c.Remove(context.Background(), "pod-1", path); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	names := queued(t, f)
	if len(names) != 1 || names[0] != "adae0238162581e2abaf98c26b265849" {
		t.Fatalf("%v", names)
	}
	folder := filepath.Join(filepath.Dir(f.socket), "queue")
	content, err := os.ReadFile(filepath.Join(folder, names[0]))
	text := `{"version":1,"owner":"containerd","workload_id":"pod-1","if_name":"eth0","netns_path":"/run/netns/pod-1"}`
	if err != nil || string(content) != text {
		t.Errorf("%s, %v", content, err)
	}
	for path, mode := range map[string]os.FileMode{folder: 0o700, filepath.Join(folder, names[0]): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
}

func TestADeletionThatWaitsIsCarriedOutBeforeTheSameKeyIsAttached(t *testing.T) {
	f := absentFake(t)
	c := f.cni(t)
	if err := c.Remove(context.Background(), "pod-1", ""); err != nil {
		t.Fatal(err)
	}
	f.start(t)
	if _, err := c.Setup(context.Background(), "pod-1", path); err != nil {
		t.Fatal(err)
	}
	if names := queued(t, f); len(names) != 0 {
		t.Errorf("%v wait still", names)
	}
	if sent := f.detaches(); len(sent) != 1 || sent[0].WorkloadId != "pod-1" || sent[0].Netns.NetnsPath != "" {
		t.Errorf("%v", sent)
	}
}

// A deletion that waits in it would come over what is attached now.
func TestNothingIsAttachedWhereTheQueueCannotBeRead(t *testing.T) {
	f := newFake(t)
	// ELOOP
	if err := os.Symlink("queue", filepath.Join(filepath.Dir(f.socket), "queue")); err != nil {
		t.Fatal(err)
	}
	_, err := f.cni(t).Setup(context.Background(), "pod-1", path)
	if err == nil || !strings.Contains(err.Error(), "read the deletions that wait in") {
		t.Error(err)
	}
}

func TestDeletionsOfSeveralNamespacesWaitAllOfThem(t *testing.T) {
	f := absentFake(t)
	c := f.cni(t)
	for _, path := range []string{"/a", "/b", "/a", "/c"} {
		if err := c.Remove(context.Background(), "pod-1", path); err != nil {
			t.Fatal(err)
		}
	}
	names := queued(t, f)
	if len(names) != 1 {
		t.Fatalf("%v", names)
	}
	content, err := os.ReadFile(filepath.Join(filepath.Dir(f.socket), "queue", names[0]))
	if err != nil || !bytes.HasSuffix(content, []byte(`"netns_path":"/a","further_netns_paths":["/b","/c"]}`)) {
		t.Errorf("%s, %v", content, err)
	}
	f.start(t)
	if _, err := c.Setup(context.Background(), "pod-1", path); err != nil {
		t.Fatal(err)
	}
	var sent []string
	for _, request := range f.detaches() {
		sent = append(sent, request.Netns.NetnsPath)
	}
	if strings.Join(sent, " ") != "/a /b /c" || len(queued(t, f)) != 0 {
		t.Errorf("%v", sent)
	}
}

func TestADaemonThatComesMeanwhileIsAskedOnceMore(t *testing.T) {
	f := newFake(t)
	f.set(func() {
		f.before = func(method string) error {
			if method == "Detach" && f.times("Detach") == 1 {
				return refuse(codes.Unavailable, "STOPPING", "the daemon is stopping")
			}
			return nil
		}
	})
	if err := f.cni(t).Remove(context.Background(), "pod-1", path); err != nil {
		t.Fatal(err)
	}
	if names := queued(t, f); len(names) != 0 || f.times("Detach") != 2 {
		t.Errorf("%v wait still after %d tries", names, f.times("Detach"))
	}
}

func TestADaemonThatHangsDoesNotKeepAWorkload(t *testing.T) {
	f := absentFake(t)
	silent(t, f.socket)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := f.cni(t).Remove(ctx, "pod-1", path); err != nil {
		t.Error(err)
	}
	if names := queued(t, f); len(names) != 1 {
		t.Errorf("%v", names)
	}
	gone, leave := context.WithCancel(context.Background())
	leave()
	if err := f.cni(t).Remove(gone, "pod-2", path); err == nil {
		t.Error("nobody waited, and it succeeded")
	}
}

func TestWhatIsNoDeletionIsLeftForTheDaemonToJudge(t *testing.T) {
	f := newFake(t)
	folder := filepath.Join(filepath.Dir(f.socket), "queue")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"", "{", `{"version":2}`, `{"version":1,"owner":"other"}`} {
		if err := os.WriteFile(filepath.Join(folder, "adae0238162581e2abaf98c26b265849"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.cni(t).Setup(context.Background(), "pod-1", path); err != nil {
			t.Error(err)
		}
		if names := queued(t, f); len(names) != 1 || f.times("Detach") > 0 {
			t.Errorf("%q: %v, %d detaches", content, names, f.times("Detach"))
		}
	}
}

func TestADeletionThatCannotBeKeptIsAnError(t *testing.T) {
	f := absentFake(t)
	folder := filepath.Dir(f.socket)
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := f.cni(t).Remove(context.Background(), "pod-1", path)
	if err == nil || !strings.Contains(err.Error(), "cannot be kept for later") {
		t.Error(err)
	}
}

func TestADeletionThatTookTheCarriedOutOnesPlaceStays(t *testing.T) {
	f := newFake(t)
	d, err := daemonAt(f.socket)
	if err != nil {
		t.Fatal(err)
	}
	newer := deletion{Version: queueVersion, WorkloadID: "pod-1", IfName: "eth0"}
	older := newer
	older.NetnsPath = path
	if err := d.queue().put(older); err != nil {
		t.Fatal(err)
	}
	waits := func() *waiting {
		found, err := d.queue().find(older)
		if err != nil || found == nil {
			t.Fatalf("%v, %v", found, err)
		}
		return found
	}
	found := waits()
	if err := d.queue().put(newer); err != nil {
		t.Fatal(err)
	}
	if err := d.queue().remove(found); err != nil || len(queued(t, f)) != 1 {
		t.Errorf("%v wait, %v", queued(t, f), err)
	}
	// What names a namespace asks for less.
	if err := d.queue().put(older); err != nil || waits().NetnsPath != "" {
		t.Errorf("%v waits, %v", waits(), err)
	}
	found = waits()
	for range 2 {
		if err := d.queue().remove(found); err != nil || len(queued(t, f)) != 0 {
			t.Errorf("%v wait, %v", queued(t, f), err)
		}
	}
}

func TestADaemonThatEndsUnderARemovalIsNotWaitedFor(t *testing.T) {
	for range 20 {
		f := newFake(t)
		c := f.cni(t)
		if err := c.Status(); err != nil {
			t.Fatal(err)
		}
		f.stop()
		began := time.Now()
		if err := c.Remove(context.Background(), "pod-1", path); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 2*time.Second || len(queued(t, f)) != 1 {
			t.Errorf("%v wait after %v", queued(t, f), took)
		}
	}
}

func TestADeletionOfWhatCannotHaveBeenAttachedIsDone(t *testing.T) {
	there, absent := newFake(t), absentFake(t)
	// As the daemon does.
	there.answerWith("Detach", refuse(codes.InvalidArgument, "INVALID_FIELD", "it cannot be one"))
	for name, path := range map[string]string{
		"relative": "run/netns/pod-1", "with NUL": "/run/\x00", "no UTF-8": "/run/\xff", "long": "/" + strings.Repeat("x", 4095),
	} {
		for _, f := range []*fake{there, absent} {
			if err := f.cni(t).Remove(context.Background(), "pod-1", path); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, id := range []string{"", "\xff"} {
		for _, f := range []*fake{there, absent} {
			if err := f.cni(t).Remove(context.Background(), id, ""); err != nil {
				t.Errorf("%q: %v", id, err)
			}
		}
	}
	if names := queued(t, absent); len(names) != 0 {
		t.Errorf("%v wait for nothing", names)
	}
}

func TestWhatIsNoFileInTheQueueKeepsNobodyWaiting(t *testing.T) {
	f := newFake(t)
	folder := filepath.Join(filepath.Dir(f.socket), "queue")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "adae0238162581e2abaf98c26b265849")
	for name, put := range map[string]func() error{
		"pipe":   func() error { return syscall.Mkfifo(file, 0o600) },
		"link":   func() error { return os.Symlink("/dev/zero", file) },
		"folder": func() error { return os.Mkdir(file, 0o700) },
		"large":  func() error { return os.WriteFile(file, bytes.Repeat([]byte(" "), 1<<20), 0o600) },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := f.cni(t).Setup(context.Background(), "pod-1", path)
			done <- err
		}()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: it waits still", name)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}
