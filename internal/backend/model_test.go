package backend

import (
	"io"
	"os"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
)

func TestOpenModelWithoutPlugins(t *testing.T) {
	t.Setenv(searchEnv, t.TempDir())
	for _, choice := range []string{"auto", "", "go", "gomlx"} {
		b, s, err := OpenModel(choice)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Finalize()
		if s.Kind != Go || !s.Available {
			t.Errorf("%q: status %+v", choice, s)
		}
		if auto := choice == "auto" || choice == ""; auto && noXLA == "" && !strings.Contains(s.Detail, "mergekit backends install cpu") {
			t.Errorf("%q: the detail does not say how to get a faster one: %s", choice, s.Detail)
		}
	}
	for choice, want := range map[string]string{"xla:cpu": "--backend go", "xla:cuda": "--backend go", "tpu": "choose auto, go, xla:cpu", "./none/pjrt_c_api_cpu_plugin.so": "does not exist"} {
		if noXLA != "" && strings.HasSuffix(choice, ".so") {
			want = noXLA
		}
		if b, _, err := OpenModel(choice); err == nil {
			b.Finalize()
			t.Errorf("%s: no error", choice)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %q, want %q", choice, err, want)
		}
	}
}

// TestModelGoComputesSilently multiplies several matrices at once, which is what the backend's default deadlocks on, and sees
// that opening it printed nothing.
func TestModelGoComputesSilently(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	real := os.Stdout
	os.Stdout = w
	b, s, err := OpenModel("go")
	os.Stdout = real
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	if out, _ := io.ReadAll(r); len(out) > 0 {
		t.Errorf("opening printed %q", out)
	}
	if !strings.Contains(s.Detail, "parallelism=-1") {
		t.Errorf("the bound is still there: %s", s.Detail)
	}
	e, err := NewExec(b, func(x *Node) *Node {
		var sum *Node
		for i := range 16 {
			y := Dot(AddScalar(x, float64(i)), x).Product()
			if sum == nil {
				sum = y
			} else {
				sum = Add(sum, y)
			}
		}
		return sum
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Finalize()
	const n = 192
	x := make([][]float32, n)
	for i := range x {
		x[i] = make([]float32, n)
		x[i][i] = 1
	}
	out, err := e.Call1(x)
	if err != nil {
		t.Fatal(err)
	}
	// The sum over i of (I+i)*I: 16*I + 120.
	got := out.Value().([][]float32)
	if got[3][3] != 136 || got[3][4] != 120 {
		t.Errorf("got %v and %v", got[3][3], got[3][4])
	}
}
