//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package hub

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Some tools remove a lock file when they let go of it: who waited for it must not hold a lock that nobody else sees.
func TestLockFileThatIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	first, err := lockFile(context.Background(), path, func() {})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan func(), 1)
	waits := make(chan struct{})
	go func() {
		unlock, err := lockFile(context.Background(), path, func() { close(waits) })
		if err != nil {
			t.Error(err)
		}
		got <- unlock
	}()
	<-waits
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	first()
	second := <-got
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := lockFile(ctx, path, func() {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two have the lock: %v", err)
	}
	second()
}
