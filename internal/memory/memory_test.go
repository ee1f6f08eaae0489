package memory

import (
	"runtime"
	"testing"
)

func TestValue(t *testing.T) {
	const text = "VmRSS:\t   1234 kB\nRssAnon:\t     567 kB\nOther: x kB\n"
	for name, want := range map[string]int64{"VmRSS:": 1234 << 10, "RssAnon:": 567 << 10, "Other:": 0, "None:": 0} {
		if got := value([]byte(text), name); got != want {
			t.Errorf("%s %d, want %d", name, got, want)
		}
	}
}

// The watcher sees memory that was there for a while.
func TestWatch(t *testing.T) {
	if runtime.GOOS != "linux" {
		if Anonymous() != 0 {
			t.Error("this system tells, and nobody knew")
		}
		return
	}
	if total := Total(); total < 1<<26 {
		t.Errorf("the machine has %d bytes", total)
	}
	w := Watch()
	const size = 64 << 20
	b := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		b[i] = 1
	}
	w.sample()
	runtime.KeepAlive(b)
	if anon, rss := w.Stop(); anon < size || rss < anon {
		t.Errorf("%d anonymous and %d resident bytes while %d were in use", anon, rss, size)
	}
}
