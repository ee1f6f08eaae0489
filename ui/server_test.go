package ui

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/plan"
)

// recipeText is a recipe for the small models.
const recipeText = `# two fine-tunes
merge_method: ties
base_model: models/base
models:
  - model: models/ft1
    parameters: {weight: 1.0, density: 0.5}
  - model: models/ft2
    parameters: {weight: 0.5, density: 0.5}
dtype: bfloat16
`

// session is a server on a folder of its own, and a browser that has opened its page.
type session struct {
	t      *testing.T
	s      *Server
	dir    string
	client *http.Client
	origin string
	base   string // of the addresses behind the guard
	end    func() bool
}

func newSession(t *testing.T, change ...func(o *Options)) *session {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"base", "ft1", "ft2", "lora1"} {
		if err := os.CopyFS(filepath.Join(dir, "models", m), os.DirFS("../testdata/golden/models/"+m)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ties.yml"), []byte(recipeText), 0o666); err != nil {
		t.Fatal(err)
	}
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: dir, Merge: merge.Options{Backend: b, Threads: 2, CopyTokenizer: true, ModelCard: true, Provenance: true, Version: "test"}}
	for _, f := range change {
		f(&o)
	}
	s, err := Listen(0, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan bool, 1)
	go func() {
		interrupted, err := s.Serve(ctx)
		if err != nil {
			t.Error(err)
		}
		ended <- interrupted
	}()
	jar, _ := cookiejar.New(nil)
	q := &session{t: t, s: s, dir: dir, client: &http.Client{Jar: jar}, origin: fmt.Sprintf("http://127.0.0.1:%d", s.guard.port)}
	q.base = q.origin + strings.TrimSuffix(s.guard.room, "/")
	over := false
	q.end = func() bool {
		over = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if !over {
			q.end()
		}
		b.Finalize()
	})
	r, err := q.client.Get(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK || r.Request.URL.RawQuery != "" {
		t.Fatalf("the page: status %d at %s", r.StatusCode, r.Request.URL)
	}
	return q
}

// ask sends a request as the page does, and reads what comes back into v, which may be nil.
func (q *session) ask(method, path string, send, v any) (status int, text string) {
	q.t.Helper()
	var in io.Reader
	if send != nil {
		b, err := json.Marshal(send)
		if err != nil {
			q.t.Fatal(err)
		}
		in = bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, q.base+path, in)
	if err != nil {
		q.t.Fatal(err)
	}
	r.Header.Set("Origin", q.origin)
	r.Header.Set("Content-Type", "application/json")
	answer, err := q.client.Do(r)
	if err != nil {
		q.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		q.t.Fatal(err)
	}
	if v != nil {
		if err := json.Unmarshal(b, v); err != nil {
			q.t.Fatalf("%s %s: %d %s", method, path, answer.StatusCode, b)
		}
	}
	return answer.StatusCode, string(b)
}

// refused sees that a request is answered with a status and a message.
func (q *session) refused(status int, message, method, path string, send any) {
	q.t.Helper()
	got, text := q.ask(method, path, send, nil)
	if got != status || !strings.Contains(text, message) {
		q.t.Errorf("%s %s: %d %s; want %d and %q", method, path, got, text, status, message)
	}
}

// events reads a stream of events until f says that it is enough.
func (q *session) events(path string, f func(name, data string) bool) {
	q.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", q.base+path, nil)
	answer, err := q.client.Do(r)
	if err != nil {
		q.t.Fatal(err)
	}
	defer answer.Body.Close()
	name := ""
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			name = v
		} else if v, ok := strings.CutPrefix(lines.Text(), "data: "); ok && f(name, v) {
			return
		}
	}
	q.t.Fatalf("%s ended: %v", path, lines.Err())
}

func TestOpen(t *testing.T) {
	q := newSession(t)
	var page struct{ Entries []Entry }
	q.ask("GET", "/api/browse?path=.", nil, &page)
	if len(page.Entries) != 2 || page.Entries[1].Detail != "ties" {
		t.Errorf("the folder: %+v", page.Entries)
	}
	var c checkpointView
	q.ask("GET", "/api/checkpoint?path=models/base", nil, &c)
	if len(c.Tensors) != 39 || c.Elements != 59424 || c.Detail != "LlamaForCausalLM" || !strings.Contains(string(c.Config), "LlamaForCausalLM") {
		t.Errorf("%d tensors, %d elements, %s", len(c.Tensors), c.Elements, c.Detail)
	}
	var s struct {
		Std       float64
		Histogram []int64
	}
	q.ask("GET", "/api/statistics?path=models/ft1&tensor=model.norm.weight", nil, &s)
	if s.Std <= 0 || len(s.Histogram) != 64 {
		t.Errorf("statistics %+v", s)
	}
	var d comparison
	q.events("/api/compare?a=models/base&b=models/ft1", func(name, data string) bool {
		if name == "failed" {
			t.Fatal(data)
		}
		return name == "done" && json.Unmarshal([]byte(data), &d) == nil
	})
	if len(d.Tensors) != 39 || d.Equal != 0 || *d.Tensors[0].Max <= 0 {
		t.Errorf("%d tensors, %d equal", len(d.Tensors), d.Equal)
	}
	q.events("/api/compare?a=models/base&b=models/none", func(name, data string) bool {
		if name != "failed" || !strings.Contains(data, "models/none") {
			t.Errorf("%s %s", name, data)
		}
		return true
	})
	q.refused(422, "there is no such tensor", "GET", "/api/statistics?path=models/base&tensor=x", nil)
	q.refused(404, "cannot be opened", "GET", "/api/checkpoint?path=nothing", nil)
	q.refused(403, "leads out", "GET", "/api/checkpoint?path=../x", nil)
	q.refused(403, "neither in the folder", "GET", "/api/checkpoint?path=/etc", nil)
	q.refused(403, "is no recipe by its name", "GET", "/api/recipe?path=models/base/config.json", nil)
	q.refused(405, "", "POST", "/api/browse", map[string]string{})
	var list []map[string]any
	q.ask("GET", "/api/methods", nil, &list)
	if len(list) < 30 || list[0]["summary"] == "" {
		t.Errorf("%d methods", len(list))
	}
}

// TestLinkedWeights sees that a checkpoint is not opened whose weights are a link that leads out of the folder.
func TestLinkedWeights(t *testing.T) {
	q := newSession(t)
	elsewhere, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(elsewhere, os.DirFS("../testdata/golden/models/base")); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(q.dir, "models", "linked")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"model.safetensors", "config.json"} {
		if err := os.Symlink(filepath.Join(elsewhere, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	q.refused(403, "link that leads out", "GET", "/api/checkpoint?path=models/linked", nil)
	q.refused(403, "link that leads out", "GET", "/api/statistics?path=models/linked&tensor=model.norm.weight", nil)
}

func TestCheck(t *testing.T) {
	q := newSession(t)
	check := func(text string) (c checked) {
		q.ask("POST", "/api/check", checkRequest{"ties.yml", text}, &c)
		return c
	}
	c := check(recipeText)
	if len(c.Problems) != 0 || len(c.Plans) != 1 {
		t.Fatalf("%+v", c)
	}
	if p := c.Plans[0]; p.Written != 118848 || p.Tensors != 39 || p.Memory <= 0 || len(p.Models) != 3 || !p.Models[0].Base || p.Models[1].Path != "models/ft1" || p.Arch != "llama" {
		t.Errorf("%+v", p)
	}
	for text, want := range map[string]problem{
		strings.Replace(recipeText, "ties\n", "tiess\n", 1):              {2, 15, severityError, `unknown merge method "tiess"; did you mean "ties"?`},
		strings.Replace(recipeText, "models/ft2", "models/ft9", 1):       {7, 12, severityError, "model models/ft9: not found"},
		strings.Replace(recipeText, "dtype:", "dtipe:", 1):               {9, 1, severityError, "dtipe"},
		strings.Replace(recipeText, "density: 0.5}\ndtype", "densit", 1): {8, 5, severityError, ""},
		strings.Replace(recipeText, "weight: 1.0", "weight: one", 1):     {6, 26, severityError, "weight"},
		strings.Replace(recipeText, "weight: 1.0", "wait: 1.0", 1):       {5, 5, severityError, `needs the parameter "weight"`},
	} {
		c := check(text)
		found := false
		for _, p := range c.Problems {
			found = found || p.Severity == want.Severity && p.Line == want.Line && (p.Col == want.Col || want.Message == "") && strings.Contains(p.Message, want.Message)
			if strings.Contains(p.Message, q.dir) {
				t.Errorf("a message with the folder in it: %s", p.Message)
			}
		}
		if !found {
			t.Errorf("want %+v, got %+v for\n%s", want, c.Problems, text)
		}
	}
	two := "name: half\nmerge_method: linear\nmodels:\n  - model: models/base\n    parameters: {weight: 1}\n  - model: models/ft1\n    parameters: {weight: 1}\n---\n" +
		"merge_method: slerp\nbase_model: half\nmodels: [{model: half}, {model: models/ft2}]\nparameters: {t: 0.5}\n"
	c = check(two)
	if len(c.Problems) != 0 || len(c.Plans) != 2 || !c.Plans[0].Fused || !c.Plans[1].Output || c.Plans[1].Method != "slerp" {
		t.Errorf("two documents: %+v", c)
	}
	q.refused(403, "leads out", "POST", "/api/check", checkRequest{"../x.yml", recipeText})
	q.refused(400, "unknown field", "POST", "/api/check", map[string]string{"file": "x"})
	q.refused(413, "too large", "POST", "/api/check", checkRequest{"x.yml", strings.Repeat("x", maxBody)})
	var found completions
	q.ask("POST", "/api/complete", completeRequest{"ties.yml", "base_model: ", ""}, &found)
	if len(found.Items) != 4 || found.Items[0].Label != "models/base" {
		t.Errorf("models: %+v", found)
	}
}

// TestElsewhere sees that writing the name of a model that is not here brings nothing, and running the recipe does.
func TestElsewhere(t *testing.T) {
	fetched := make(chan string, 1)
	q := newSession(t, func(o *Options) {
		dir := o.Dir
		o.Cached = func(string, string, bool) (string, error) { return "", errors.New("not here") }
		o.Fetch = func(_ context.Context, tell Fetching) plan.Fetch {
			return func(path, revision string, _ bool) (string, error) {
				tell.Started("downloading "+path, 10)
				tell.Moved(10)
				fetched <- path + "@" + revision
				return filepath.Join(dir, "models", "ft2"), nil
			}
		}
	})
	text := strings.Replace(recipeText, "models/ft2", "org/name@v1", 1)
	var c checked
	q.ask("POST", "/api/check", checkRequest{"ties.yml", text}, &c)
	var slip checked
	q.ask("POST", "/api/check", checkRequest{"ties.yml", strings.Replace(recipeText, "models/ft2", "models/ft9", 1)}, &slip)
	if len(slip.Problems) != 1 || slip.Problems[0].Severity != severityWarning {
		t.Errorf("a directory that is not there: %+v", slip)
	}
	if len(c.Problems) != 1 || c.Problems[0].Severity != severityNote || c.Problems[0].Line != 7 || !strings.Contains(c.Problems[0].Message, "is not on this machine") {
		t.Fatalf("%+v", c)
	}
	select {
	case p := <-fetched:
		t.Fatalf("%s was fetched for a look", p)
	default:
	}
	var saved struct{ Digest string }
	q.ask("PUT", "/api/recipe", saveRequest{"ties.yml", text, digest([]byte(recipeText))}, &saved)
	q.ask("POST", "/api/run", runRequest{Recipe: "ties.yml", Digest: saved.Digest, Output: "out"}, nil)
	if r := q.finish(); r.State != runDone {
		t.Fatalf("%+v", r)
	}
	if p := <-fetched; p != "org/name@v1" {
		t.Errorf("%s was fetched", p)
	}
}

// finish waits until the run is over.
func (q *session) finish() (r run) {
	q.t.Helper()
	q.events("/api/run", func(name, data string) bool {
		if err := json.Unmarshal([]byte(data), &r); err != nil {
			q.t.Fatal(err)
		}
		return r.State == runDone || r.State == runFailed || r.State == runInterrupted
	})
	return r
}

func TestSave(t *testing.T) {
	q := newSession(t)
	was := digest([]byte(recipeText))
	file := filepath.Join(q.dir, "ties.yml")
	text := strings.Replace(recipeText, "0.5", "0.25", 1)
	q.refused(409, "exists", "PUT", "/api/recipe", saveRequest{"ties.yml", text, ""})
	if b, _ := os.ReadFile(file); string(b) != recipeText {
		t.Fatal("it was overwritten")
	}
	if status, answer := q.ask("PUT", "/api/recipe", saveRequest{"ties.yml", text, was}, nil); status != 200 {
		t.Fatal(answer)
	}
	if b, _ := os.ReadFile(file); string(b) != text {
		t.Error("it was not written")
	}
	q.refused(409, "was changed by another", "PUT", "/api/recipe", saveRequest{"ties.yml", recipeText, was})
	q.refused(409, "not there any more", "PUT", "/api/recipe", saveRequest{"gone.yml", recipeText, was})
	q.refused(403, "no name for a recipe", "PUT", "/api/recipe", saveRequest{"models/base/config.json", "{}", ""})
	q.refused(403, "leads out", "PUT", "/api/recipe", saveRequest{"../ties.yml", text, ""})
	q.refused(404, "cannot be opened", "PUT", "/api/recipe", saveRequest{"nothing/ties.yml", text, ""})
	if status, answer := q.ask("PUT", "/api/recipe", saveRequest{"new.yml", text, ""}, nil); status != 200 {
		t.Fatal(answer)
	}
	if b, _ := os.ReadFile(filepath.Join(q.dir, "new.yml")); string(b) != text {
		t.Error("the new one was not written")
	}
	list, err := os.ReadDir(q.dir)
	if err != nil || len(list) != 3 {
		t.Errorf("left behind: %v, %v", list, err)
	}
}

func TestRun(t *testing.T) {
	q := newSession(t)
	start := runRequest{Recipe: "ties.yml", Digest: digest([]byte(recipeText)), Output: "out", Report: true}
	q.refused(409, "nothing is running", "DELETE", "/api/run", nil)
	other := start
	other.Digest = digest(nil)
	q.refused(409, "is not what this page shows", "POST", "/api/run", other)
	other = start
	other.Output = "../out"
	q.refused(403, "leads out", "POST", "/api/run", other)
	if status, text := q.ask("POST", "/api/run", start, nil); status != 200 {
		t.Fatal(text)
	}
	r := q.finish()
	if r.State != runDone || r.Summary == nil || r.Summary.Tensors != 39 || r.Report != "out/report.html" || r.Total != 118848 || r.Done != r.Total || r.Peak <= 0 {
		t.Fatalf("%+v", r)
	}
	if late := q.finish(); late.ID != r.ID || late.State != runDone { // a page that is opened afterwards
		t.Errorf("%+v", late)
	}
	// What the command would have written.
	o := q.s.o.Merge
	alone := filepath.Join(t.TempDir(), "out")
	if _, err := merge.Run(context.Background(), filepath.Join(q.dir, "ties.yml"), alone, o); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"model.safetensors", "config.json", "mergekit_config.yml"} {
		a, err := os.ReadFile(filepath.Join(q.dir, "out", name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(alone, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s is not what merge writes", name)
		}
	}

	var v outputView
	q.ask("GET", "/api/output?path=out", nil, &v)
	if !v.Exists || v.Partial || len(v.Reports) != 1 || v.Reports[0].Path != "out/report.html" || v.Recipe != recipeText || !strings.Contains(v.Card, "ties") || len(v.Provenance) == 0 {
		t.Errorf("%+v", v)
	}
	answer, err := q.client.Get(q.base + "/report/out/report.html")
	if err != nil {
		t.Fatal(err)
	}
	page, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	if answer.StatusCode != 200 || !strings.Contains(string(page), "Merge: out") || !strings.HasPrefix(answer.Header.Get("Content-Security-Policy"), "sandbox; default-src 'none'") {
		t.Errorf("the report: %d, %v", answer.StatusCode, answer.Header)
	}
	for _, p := range []string{"ties.yml", "models/base/config.json", "..%2f..%2fetc%2fpasswd"} {
		if answer, err := q.client.Get(q.base + "/report/" + p); err != nil || answer.StatusCode == 200 {
			t.Errorf("%s is served as a report", p)
		}
	}

	q.ask("POST", "/api/run", start, nil)
	if r := q.finish(); r.State != runFailed || !strings.Contains(r.Error, "exists") || r.ID != 2 {
		t.Errorf("over an output: %+v", r)
	}
	start.Replace = true
	q.ask("POST", "/api/run", start, nil)
	if r := q.finish(); r.State != runDone {
		t.Errorf("replacing an output: %+v", r)
	}
}

// TestFaultyRun sees that a run tells where in the recipe the fault is.
func TestFaultyRun(t *testing.T) {
	q := newSession(t)
	text := strings.Replace(recipeText, "ties\n", "tise\n", 1)
	q.ask("PUT", "/api/recipe", saveRequest{"bad.yml", text, ""}, nil)
	q.ask("POST", "/api/run", runRequest{Recipe: "bad.yml", Digest: digest([]byte(text)), Output: "out"}, nil)
	r := q.finish()
	if r.State != runFailed || r.Place == nil || r.Place.Line != 2 || !strings.HasPrefix(r.Error, "bad.yml:2:15: unknown merge method") {
		t.Errorf("%+v, %+v", r, r.Place)
	}
}

// TestStop stops a run in its middle, which another page sees, and resumes it; and it ends the server in the middle of one.
func TestStop(t *testing.T) {
	gate := make(chan struct{})
	arrived := make(chan struct{}, 10)
	var hold atomic.Bool
	hold.Store(true)
	q := newSession(t, func(o *Options) {
		o.Merge.Planned = func(*plan.Plan) error { // the merge waits here
			if hold.Load() {
				arrived <- struct{}{}
				<-gate
			}
			return nil
		}
	})
	start := runRequest{Recipe: "ties.yml", Digest: digest([]byte(recipeText)), Output: "out"}
	q.ask("POST", "/api/run", start, nil)
	<-arrived
	q.refused(409, "is being merged", "POST", "/api/run", start)
	if status, text := q.ask("DELETE", "/api/run", nil, nil); status != 200 {
		t.Error(text)
	}
	q.events("/api/run", func(_, data string) bool { return strings.Contains(data, `"state":"stopping"`) })
	gate <- struct{}{}
	if r := q.finish(); r.State != runInterrupted {
		t.Fatalf("%+v", r)
	}
	hold.Store(false)

	// One that was stopped while it wrote.
	o := q.s.o.Merge
	ctx, stop := context.WithCancel(context.Background())
	var pieces atomic.Int32
	o.Written = func(int64) {
		if pieces.Add(1) == 5 {
			stop()
		}
	}
	if _, err := merge.Run(ctx, filepath.Join(q.dir, "ties.yml"), filepath.Join(q.dir, "out"), o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	var v outputView
	if q.ask("GET", "/api/output?path=out", nil, &v); v.Exists || !v.Partial {
		t.Errorf("the interrupted merge has left nothing to resume: %+v", v)
	}
	q.ask("POST", "/api/run", start, nil)
	if r := q.finish(); r.State != runFailed || !strings.Contains(r.Error, "interrupted merge") {
		t.Errorf("neither resumed nor replaced: %+v", r)
	}
	start.Resume = true
	q.ask("POST", "/api/run", start, nil)
	if r := q.finish(); r.State != runDone {
		t.Fatalf("resumed: %+v", r)
	}
	if q.ask("GET", "/api/output?path=out", nil, &v); !v.Exists || v.Partial {
		t.Errorf("%+v", v)
	}
	hold.Store(true)
	start.Output, start.Resume = "second", false
	q.ask("POST", "/api/run", start, nil)
	<-arrived
	go func() { time.Sleep(50 * time.Millisecond); gate <- struct{}{} }()
	if !q.end() {
		t.Error("the end of the server has not interrupted the run")
	}
	if _, err := os.Stat(filepath.Join(q.dir, "second")); err == nil {
		t.Error("an interrupted merge has appeared")
	}
}

// TestClosedPage sees that reading a tensor ends when nobody waits for it any more.
func TestClosedPage(t *testing.T) {
	q := newSession(t)
	u := q.base + "/api/compare?" + url.Values{"a": {"models/base"}, "b": {"models/ft1"}}.Encode()
	ctx, cancel := context.WithCancel(context.Background())
	r, _ := http.NewRequestWithContext(ctx, "GET", u, nil)
	cancel()
	if _, err := q.client.Do(r); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(context.Background())
	leave()
	if _, err := q.s.compare(gone, r, func(int64, int64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("a comparison that nobody waits for: %v", err)
	}
}

func TestPace(t *testing.T) {
	at := time.Now()
	rate, left := pace([]sample{{at, 100}, {at.Add(time.Second), 150}, {at.Add(2 * time.Second), 300}}, 500)
	if rate != 100 || left != 2 {
		t.Errorf("%v bytes a second, %v left", rate, left)
	}
	if rate, left := pace([]sample{{at, 100}}, 500); rate != 0 || left != 0 {
		t.Errorf("one sample: %v, %v", rate, left)
	}
}
