//go:build cgo && linux

package backend

import "testing"

func TestWithFlags(t *testing.T) {
	flags := []string{"--xla_a=false", "--xla_b=true"}
	for set, want := range map[string]string{
		"":                         "--xla_a=false --xla_b=true",
		"--xla_b=false":            "--xla_b=false --xla_a=false",
		"--xla_c=1 --xla_a=true":   "--xla_c=1 --xla_a=true --xla_b=true",
		"--xla_a=true --xla_b=off": "--xla_a=true --xla_b=off",
	} {
		if got := withFlags(set, flags); got != want {
			t.Errorf("%q: %q, want %q", set, got, want)
		}
	}
}
