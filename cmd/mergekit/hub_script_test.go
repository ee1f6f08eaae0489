package main

import (
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mergekit/mergekit/internal/fakehub"
)

// hubs are the hubs of the running scripts.
var hubs sync.Map

// largeCommand: large DIR SEED N writes a checkpoint of n tensors of some 300 kB.
func largeCommand(ts *testscript.TestScript, _ bool, args []string) {
	seed, err := strconv.ParseUint(args[1], 10, 64)
	ts.Check(err)
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	ts.Check(writeNoise(ts.MkAbs(args[0]), seed, n))
}

// fakehubCommand: fakehub ORG/NAME=DIR... runs a hub with these repositories for the rest of the script, which programs find by
// HF_ENDPOINT, with an empty cache of their own.
func fakehubCommand(ts *testscript.TestScript, _ bool, args []string) {
	h, stop := fakehub.New()
	ts.Defer(stop)
	for _, a := range args {
		id, dir, ok := strings.Cut(a, "=")
		if !ok {
			ts.Fatalf("fakehub %s: not ORG/NAME=DIR", a)
		}
		commit, err := h.AddDir(id, ts.MkAbs(dir))
		ts.Check(err)
		ts.Setenv("COMMIT_"+path.Base(id), commit) // COMMIT_name
	}
	hubs.Store(ts, h)
	ts.Defer(func() { hubs.Delete(ts) })
	ts.Setenv("HF_ENDPOINT", h.URL)
	ts.Setenv("HF_HUB_OFFLINE", "")
	ts.Setenv("HF_HOME", filepath.Join(ts.Getenv("WORK"), "hf"))
}

// hubfaultCommand: hubfault KIND makes the script's hub fail from now on: wrong (large files have one wrong byte), drop (a few
// connections break off), away (nothing answers), gated (repositories want a token), none.
func hubfaultCommand(ts *testscript.TestScript, _ bool, args []string) {
	v, ok := hubs.Load(ts)
	if !ok {
		ts.Fatalf("hubfault before fakehub")
	}
	h := v.(*fakehub.Hub)
	data := func(r *http.Request) []byte {
		parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 3)
		return append([]byte(nil), h.Repos[parts[0]+"/"+parts[1]].Files[parts[2]]...)
	}
	switch args[0] {
	case "none":
		h.SetFault(nil, nil)
	case "wrong":
		h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool {
			b := data(r)
			b[len(b)-1] ^= 1
			fakehub.Serve(w, r, b)
			return true
		})
	case "drop":
		var left atomic.Int32
		left.Store(3)
		h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool {
			if left.Add(-1) < 0 {
				return false
			}
			fakehub.Break(w, r, data(r), 10_000)
			return true
		})
	case "away":
		h.SetFault(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, nil)
	case "gated":
		for _, r := range h.Repos {
			r.Gated = true
		}
	default:
		ts.Fatalf("hubfault %s: unknown", args[0])
	}
}

// fakestoreCommand: fakestore PREFIX=DIR... runs an object store with these files in s3://bucket, for the rest of the script.
func fakestoreCommand(ts *testscript.TestScript, _ bool, args []string) {
	o, stop := fakehub.NewObjects()
	ts.Defer(stop)
	for _, a := range args {
		prefix, dir, ok := strings.Cut(a, "=")
		if !ok {
			ts.Fatalf("fakestore %s: not PREFIX=DIR", a)
		}
		entries, err := os.ReadDir(ts.MkAbs(dir))
		ts.Check(err)
		for _, e := range entries {
			data, err := os.ReadFile(filepath.Join(ts.MkAbs(dir), e.Name()))
			ts.Check(err)
			o.Content["bucket/"+prefix+"/"+e.Name()] = data
		}
	}
	ts.Setenv("AWS_ENDPOINT_URL", o.URL)
	ts.Setenv("AWS_ACCESS_KEY_ID", "key")
	ts.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	ts.Setenv("HF_HUB_OFFLINE", "")
	ts.Setenv("HF_HOME", filepath.Join(ts.Getenv("WORK"), "hf"))
}
