package cni

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestAnOlderDaemonIsNamed(t *testing.T) {
	f := newFake(t)
	f.set(func() { f.features = []string{"owner", "result", "labels"} })
	_, err := f.cni(t).Setup(context.Background(), "pod-1", path, WithArgs("MAC", "0a:58:0a:4d:00:09"))
	says := fmt.Sprintf("workloadnetd 0.1.0 on %s cannot do \"requested-mac\", which the argument MAC asks for", f.socket)
	if err == nil || !strings.Contains(err.Error(), says) || !IsInvalidConfig(err) {
		t.Error(err)
	}
	if _, err := f.cni(t).Setup(context.Background(), "pod-1", path); err != nil {
		t.Error(err)
	}

	reference := newFake(t)
	reference.answerWith("GetNode", refuse(codes.Unimplemented, "", "unknown service workloadnet.v1.Inspection"))
	_, err = reference.cni(t).Setup(context.Background(), "pod-1", path)
	if err == nil || !strings.Contains(err.Error(), `cannot do "result"`) {
		t.Error(err)
	}
}

func TestADaemonIsAskedOnceForEachConnectionWhatItCanDo(t *testing.T) {
	f := newFake(t)
	c := f.cni(t)
	setup := func() {
		t.Helper()
		if _, err := c.Setup(context.Background(), "pod-1", path); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		setup()
	}
	// The first may have been asked before the connection stood.
	if asked := f.times("GetNode"); asked > 2 {
		t.Errorf("asked %d times", asked)
	}
	f.stop()
	f.set(func() { f.features = []string{"owner"} })
	f.start(t)
	if _, err := c.Setup(context.Background(), "pod-1", path); !IsInvalidConfig(err) {
		t.Errorf("an older daemon took over, and: %v", err)
	}
}

func TestSetupWaitsForADaemonThatIsNotThereYet(t *testing.T) {
	f := absentFake(t)
	c := f.cni(t)
	done := make(chan error, 1)
	go func() {
		_, err := c.Setup(context.Background(), "pod-1", path)
		done <- err
	}()
	time.Sleep(200 * time.Millisecond)
	f.start(t)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits still")
	}
}

func TestSetupComesBackWhenTheDaemonSays(t *testing.T) {
	f := newFake(t)
	f.answerWith("Attach", refuseFor(50*time.Millisecond, "NOT_READY", "not ready: recovering"))
	time.AfterFunc(200*time.Millisecond, func() { f.answerWith("", nil) })
	if _, err := f.cni(t).Setup(context.Background(), "pod-1", path); err != nil {
		t.Error(err)
	}
	if tried := f.times("Attach"); tried < 3 || tried > 8 {
		t.Errorf("tried %d times", tried)
	}
}

func TestSetupEndsWithItsContext(t *testing.T) {
	for name, f := range map[string]*fake{"absent": absentFake(t), "unready": newFake(t)} {
		f.answerWith("Attach", refuseFor(20*time.Millisecond, "NOT_READY", "not ready: no prefix"))
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		_, err := f.cni(t).Setup(ctx, "pod-1", path)
		if !IsCNINotInitialized(err) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		says := map[string]string{"absent": "cannot be reached on " + f.socket, "unready": "not ready: no prefix"}[name]
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := absentFake(t).cni(t).Setup(ctx, "pod-1", path); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestACallWhoseConnectionIsLostIsMadeAgain(t *testing.T) {
	f := newFake(t)
	c := f.cni(t)
	if err := c.Status(); err != nil {
		t.Fatal(err)
	}
	once := sync.OnceFunc(func() {
		go f.stop()
		time.Sleep(100 * time.Millisecond)
	})
	f.set(func() {
		f.before = func(method string) error {
			if method == "Attach" {
				once()
			}
			return nil
		}
	})
	time.AfterFunc(300*time.Millisecond, func() { f.start(t) })
	if _, err := c.Setup(context.Background(), "pod-1", path); err != nil {
		t.Error(err)
	}
}

func TestAListenerThatSaysNothingDoesNotHang(t *testing.T) {
	f := absentFake(t)
	silent(t, f.socket)
	began := time.Now()
	if err := f.cni(t).Status(); !IsCNINotInitialized(err) || time.Since(began) > 4*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestInstancesShareOneConnection(t *testing.T) {
	f := newFake(t)
	var group sync.WaitGroup
	for i := range 20 {
		c := f.cni(t)
		group.Add(1)
		go func() {
			defer group.Done()
			if _, err := c.Setup(context.Background(), fmt.Sprint("pod-", i), path); err != nil {
				t.Error(err)
			}
		}()
	}
	group.Wait()
	d, err := daemonAt(f.socket)
	if err != nil || d.connections.Load() != 1 {
		t.Errorf("%d connections were made, %v", d.connections.Load(), err)
	}
}

func TestNewAndLoadAskNobody(t *testing.T) {
	f := absentFake(t)
	c := f.cni(t, WithMinNetworkCount(2), WithPluginConfDir("/none"), WithPluginDir([]string{"/none"}))
	if err := c.Load(WithLoNetwork, WithDefaultConf); err != nil {
		t.Error(err)
	}
	if d, err := daemonAt(f.socket); err != nil || d.connections.Load() != 0 {
		t.Error("it connected")
	}
	for _, bad := range []string{"run/w.sock", "/" + strings.Repeat("x", 107), "/a\x00b"} {
		if _, err := New(WithSocket(bad)); !IsInvalidConfig(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestACallThatEndsEarlyIsMadeAgain(t *testing.T) {
	for _, code := range []codes.Code{codes.Canceled, codes.Internal, codes.Unknown, codes.Unavailable} {
		f := newFake(t)
		f.set(func() {
			f.before = func(method string) error {
				if method == "Attach" && f.times("Attach") == 1 || method == "Detach" && f.times("Detach") == 1 {
					return status.Error(code, "stream terminated")
				}
				return nil
			}
		})
		if _, err := f.cni(t).Setup(context.Background(), "pod-1", path); err != nil {
			t.Errorf("%s: %v", code, err)
		}
		if err := f.cni(t).Remove(context.Background(), "pod-1", path); err != nil || f.times("Detach") != 2 {
			t.Errorf("%s: %v after %d tries", code, err, f.times("Detach"))
		}
		// One that never answers is one that is down.
		f.answerWith("Detach", status.Error(code, "stream terminated"))
		if err := f.cni(t).Remove(context.Background(), "pod-1", path); err != nil || len(queued(t, f)) != 1 {
			t.Errorf("%s: %v, and %v wait", code, err, queued(t, f))
		}
	}
}

func TestACallLastsUntilItsOwnDeadline(t *testing.T) {
	for _, reason := range []string{"ORDER_GOES_ON", "NOT_BEGUN"} {
		f := newFake(t)
		f.set(func() {
			f.before = func(method string) error {
				if method == "Attach" && f.times("Attach") < 3 {
					return refuse(codes.DeadlineExceeded, reason, "the deadline is near")
				}
				return nil
			}
		})
		if _, err := f.cni(t).Setup(context.Background(), "pod-1", path); err != nil {
			t.Errorf("%s: %v", reason, err)
		}
		f.answerWith("Attach", refuse(codes.DeadlineExceeded, reason, "the deadline is near"))
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		_, err := f.cni(t).Setup(ctx, "pod-1", path)
		if ctx.Err() == nil || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the deadline is near") {
			t.Errorf("%s: %v", reason, err)
		}
	}
}

// The daemon is asked once more what it can do where the connection is a new one, as the first one is.
func TestAnAttachmentStaysWhenItsDaemonCannotBeAskedWhatItCanDo(t *testing.T) {
	f := newFake(t)
	f.set(func() {
		f.before = func(method string) error {
			if method == "GetNode" && f.times("GetNode") == 2 {
				return refuseFor(time.Millisecond, "OVERLOADED", "too many orders")
			}
			return nil
		}
	})
	if _, err := f.cni(t).Setup(context.Background(), "pod-1", path); err != nil {
		t.Error(err)
	}
	if f.times("GetNode") < 2 || f.times("Detach") > 0 {
		t.Errorf("asked %d times, detached %d times", f.times("GetNode"), f.times("Detach"))
	}
}
