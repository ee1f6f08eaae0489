package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mergekit/mergekit/internal/fakehub"
)

// TestKillDownload kills a merge of two models of a hub with SIGKILL while it downloads, again and again, until one run gets to the end: the
// output has the right bytes, and what had been received was not asked for again.
func TestKillDownload(t *testing.T) {
	root := t.TempDir()
	h := fakehub.Start(t)
	for i, name := range []string{"base", "tuned"} {
		noise(t, filepath.Join(root, name), uint64(i+1), 12)
		if _, err := h.AddDir("org/"+name, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	const piece = 64 << 10
	var served atomic.Int64
	h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool { // a slow store
		data := h.Repos["org/"+filepath.Base(filepath.Dir(r.URL.Path))].Files[filepath.Base(r.URL.Path)]
		from, to, ranged := fakehub.Range(r, int64(len(data)))
		w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
		if ranged {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
		}
		for from < to && r.Context().Err() == nil {
			n := min(piece, to-from)
			if _, err := w.Write(data[from : from+n]); err != nil {
				break
			}
			from += n
			served.Add(n)
			time.Sleep(5 * time.Millisecond)
		}
		return true
	})
	text := "merge_method: task_arithmetic\nbase_model: %s/base\nmodels:\n- {model: %s/tuned, parameters: {weight: 0.7}}\n"
	run := func(org, out, cache string) *exec.Cmd {
		recipe := filepath.Join(root, out+".yml")
		if err := os.WriteFile(recipe, []byte(fmt.Sprintf(text, org, org)), 0o666); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(os.Args[0], "merge", recipe, filepath.Join(root, out), "--backend", "go", "--quiet", "--resume", "--transformers-cache", cache) // a kill may come as late as in the merge
		c.Env = append(os.Environ(), killVariable+"=1", "HF_ENDPOINT="+h.URL, "HF_HUB_OFFLINE=", "HF_TOKEN=", "HF_HOME="+filepath.Join(root, "home"))
		return c
	}
	if out, err := run(root, "whole", t.TempDir()).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cache := filepath.Join(root, "cache")
	killed := 0
	for ; ; killed++ {
		c := run("org", "out", cache)
		var said bytes.Buffer
		c.Stdout, c.Stderr = &said, &said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var kill *time.Timer
		if killed < 6 { // the first kill comes early, when there is hardly a part
			kill = time.AfterFunc(time.Duration(40+60*killed)*time.Millisecond, func() { _ = c.Process.Kill() })
		}
		err := c.Wait()
		if kill != nil {
			kill.Stop()
		}
		if err == nil {
			break
		}
		if killed >= 6 {
			t.Fatalf("not killed, and yet: %v\n%s", err, said.Bytes())
		}
		if _, err := os.Stat(filepath.Join(root, "out")); err == nil {
			break // killed when all was done; below it is seen whether it was
		}
	}
	want, got := content(t, filepath.Join(root, "whole")), content(t, filepath.Join(root, "out"))
	if got["model.safetensors"] != want["model.safetensors"] || want["model.safetensors"] == "" {
		t.Error("the merge of downloaded models has other bytes")
	}
	if killed == 0 {
		t.Error("the download was faster than its kill: the test tests nothing")
	}
	size := int64(0)
	for _, r := range h.Repos {
		size += int64(len(r.Files["model.safetensors"]))
	}
	// What was under way when a kill came is lost: less than 256 KiB on each of two connections, which are read before they are written.
	const lost = 512 << 10
	if n := served.Load(); n > size+int64(killed)*lost || n < size {
		t.Errorf("%d bytes served for %d, with %d kills", n, size, killed)
	}
	t.Logf("%d kills, %d bytes served for %d", killed, served.Load(), size)
}
