package backend

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
)

func TestOpen(t *testing.T) {
	t.Setenv(searchEnv, t.TempDir()) // no plugin: "auto" is the Go backend
	for _, c := range []struct {
		choice string
		kind   Kind
	}{{"auto", Go}, {"", Go}, {"go", Go}, {"gomlx", GoMLX}} {
		t.Run(c.choice, func(t *testing.T) {
			b, s, err := Open(c.choice)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Finalize()
			if s.Kind != c.kind || !s.Available || s.Detail == "" {
				t.Errorf("status %+v, want kind %s", s, c.kind)
			}
			if s.Fastest != (c.choice == "auto" || c.choice == "") {
				t.Errorf("fastest is %v", s.Fastest)
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	t.Setenv(searchEnv, t.TempDir())
	for _, c := range []struct{ choice, want, wantNoXLA string }{
		{"tpu", `unknown backend "tpu": choose auto, go, gomlx, xla:cpu, xla:cuda, or the path`, ""},
		{"xla", "choose auto", ""},
		{"xla:cpu", "mergekit backends install cpu", noXLA},
		{"xla:cuda", "mergekit backends install cuda", noXLA},
		{"./none/pjrt_c_api_cpu_plugin.so", "does not exist", noXLA},
		{"plugin.so", "does not say what it runs on", noXLA},
	} {
		t.Run(c.choice, func(t *testing.T) {
			want := c.want
			if noXLA != "" && c.wantNoXLA != "" {
				want = c.wantNoXLA
			}
			b, _, err := Open(c.choice)
			if err == nil {
				b.Finalize()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q, want %q", err, want)
			}
		})
	}
}

func TestListNamesEveryBackendAndOneFastest(t *testing.T) {
	t.Setenv(searchEnv, t.TempDir())
	var kinds []Kind
	fastest := 0
	for _, s := range List() {
		kinds = append(kinds, s.Kind)
		if s.Detail == "" {
			t.Errorf("%s has no detail", s.Kind)
		}
		if s.Fastest {
			fastest++
		}
	}
	if want := []Kind{Go, GoMLX, XLACPU, XLACUDA}; !slices.Equal(kinds, want) {
		t.Errorf("kinds %v, want %v", kinds, want)
	}
	if fastest != 1 {
		t.Errorf("%d backends are the fastest", fastest)
	}
	if SIMD() == "" {
		t.Error("SIMD says nothing")
	}
}

// TestInstalledPlugins opens the plugins of this machine, if there are any.
func TestInstalledPlugins(t *testing.T) {
	for _, s := range List() {
		if s.Path == "" || !s.Available {
			continue
		}
		for _, choice := range []string{string(s.Kind), s.Path} {
			b, got, err := Open(choice)
			if err != nil {
				t.Fatal(err)
			}
			if got.Kind != s.Kind || got.Path != s.Path || b.NumDevices() < 1 {
				t.Errorf("open %s: %+v, want %+v", choice, got, s)
			}
			b.Finalize()
		}
	}
}

func TestGuardTurnsPanicsIntoErrors(t *testing.T) {
	cause := errors.New("cause")
	for _, c := range []struct {
		value any
		want  string
	}{{cause, "cause"}, {"text", "text"}} {
		b, err := guard(func() (compute.Backend, error) { panic(c.value) })
		if b != nil || err == nil || err.Error() != c.want {
			t.Errorf("panic(%v): %v, %v", c.value, b, err)
		}
	}
}
