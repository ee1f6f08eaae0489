package ui

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/mergekit/mergekit/merge/plan"
)

// shots is where pictures of the page are put: scripts/ui-shots sets it.
var shots = flag.String("shots", "", "directory for pictures of the page")

// chromium finds the browser, or skips the test.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); name != "" && err == nil {
			return p
		}
	}
	t.Skip("no Chromium is installed (set CHROMIUM, or install the package chromium), so the page is not tested in a browser")
	return ""
}

// tab is a page in the browser.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex
	faults []string // what the browser has complained of
}

// newTab opens a tab.
func newTab(t *testing.T, parent context.Context) *tab {
	t.Helper()
	b := &tab{t: t}
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithListener(b.hear))
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // the tab lives as long as the context of the first call
		t.Fatal(err)
	}
	b.ctx = ctx
	return b
}

// hear notes what the browser complains of.
func (b *tab) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			text += " " + x.Description
		}
		b.faults = append(b.faults, text)
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == cdplog.EntryLevelError || e.Entry.Source == cdplog.EntrySourceSecurity {
			b.faults = append(b.faults, e.Entry.Text+" "+e.Entry.URL)
		}
	}
}

// patience is how long something may take to be seen.
const patience = 60 * time.Second

// step is something that is done, or waited for.
type step func(b *tab) error

// do takes steps; what they wait for must come.
func (b *tab) do(what string, steps ...step) {
	b.t.Helper()
	for i, s := range steps {
		if err := s(b); err != nil {
			ctx, cancel := context.WithTimeout(b.ctx, patience/4)
			defer cancel()
			now, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
			b.t.Fatalf("%s, step %d: %v\nthe page:\n%s\nfaults: %v", what, i+1, err, now, b.faults)
		}
	}
}

// act is a step of the driver.
func act(a chromedp.Action[chromedp.Void]) step {
	return func(b *tab) error {
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		defer cancel()
		return chromedp.Do(ctx, a)
	}
}

// value is what a script gives.
func value[T any](b *tab, script string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// until waits for a script to give true. While a page comes up there is nothing to ask.
func until(script string, args ...any) step {
	script = fmt.Sprintf(script, args...)
	return func(b *tab) error {
		var err error
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			var ok bool
			ctx, cancel := context.WithTimeout(b.ctx, patience/4)
			ok, err = chromedp.Run(ctx, chromedp.Evaluate[bool](script))
			cancel()
			if ok {
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("it never came that %s: %w", script, err)
		}
		return fmt.Errorf("it never came that %s", script)
	}
}

// sees waits for an element that holds a text.
func sees(selector, text string) step {
	return until(`[...document.querySelectorAll(%q)].some((e) => e.textContent.includes(%q))`, selector, text)
}

// misses waits until there is no such element.
func misses(selector string) step { return until(`document.querySelector(%q) === null`, selector) }

// press clicks the element of a kind that has a text, once it can be clicked.
func press(selector, text string) step {
	return until(`(() => { const e = [...document.querySelectorAll(%q)].find((e) => e.textContent.trim() === %q && !e.disabled); if (e) e.click(); return !!e; })()`, selector, text)
}

// cursor puts the cursor behind the first place where the recipe has a text.
func cursor(text string) step {
	return until(`(() => { const a = document.querySelector("textarea"), i = a ? a.value.indexOf(%q) : -1; if (i >= 0) { a.focus(); a.setSelectionRange(i + %[1]q.length, i + %[1]q.length); } return i >= 0; })()`, text)
}

// field goes into a field and takes out what is in it.
func field(selector string) step {
	return until(`(() => { const e = document.querySelector(%q); if (e) { e.focus(); e.select(); } return !!e; })()`, selector)
}

func navigate(url string) step { return act(chromedp.Navigate(url)) }

// write presses keys. What a key types comes with its going down, as from a keyboard, so that a page may keep it from typing.
func write(keys string, modifiers ...kb.Modifier) step {
	return act(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for _, r := range keys {
			events := kb.Encode(r)
			down, up := *events[0], *events[len(events)-1]
			if len(events) == 3 && len(modifiers) == 0 {
				down.Text, down.UnmodifiedText = events[1].Text, events[1].UnmodifiedText
			}
			for _, m := range modifiers {
				down.Modifiers |= int64(m)
			}
			for _, e := range []input.DispatchKeyEventParams{down, up} {
				if _, err := cdp.Call(ctx, t, input.DispatchKeyEvent, e); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

// completeKey presses Ctrl and Space.
func completeKey() step { return write(" ", kb.ModifierCtrl) }

// size gives the page a size.
func size(width, height int64) step { return act(chromedp.EmulateViewport(width, height)) }

// sizes are the two at which the page must be good.
var sizes = []struct{ width, height int64 }{{1280, 900}, {390, 844}}

// fits sees that the page needs not to be scrolled sideways at either width.
func (b *tab) fits(name string) {
	b.t.Helper()
	b.look(name, false)
}

// shoot is fits, and takes pictures if that is wanted.
func (b *tab) shoot(name string) {
	b.t.Helper()
	b.look(name, *shots != "")
}

func (b *tab) look(name string, picture bool) {
	b.t.Helper()
	for _, s := range sizes {
		b.do("measuring "+name, size(s.width, s.height), act(chromedp.Sleep(150*time.Millisecond)))
		if needs := value[int64](b, `document.documentElement.scrollWidth`); needs > s.width {
			b.t.Errorf("%s needs %d pixels of %d: %s", name, needs, s.width,
				value[string](b, `[...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".wide, pre, .editor")).map((e) => e.outerHTML.slice(0, 80)).slice(0, 3).join("\n")`))
		}
		if !picture {
			continue
		}
		// Where the test works is nothing to show.
		b.do("naming the folder", until(`(document.querySelector(".dir").textContent = "/home/ada/models", true)`))
		picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err == nil {
			err = os.WriteFile(filepath.Join(*shots, fmt.Sprintf("ui-%s-%d.png", name, s.width)), picture, 0o666)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	b.do("the desk again", size(sizes[0].width, sizes[0].height))
}

// unscathed sees that the browser has complained of nothing.
func (b *tab) unscathed() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		b.t.Errorf("the browser says: %s", f)
	}
}

func startBrowser(t *testing.T) context.Context {
	t.Helper()
	o := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.WindowSize(1280, 900),
		chromedp.Flag("host-resolver-rules", "MAP rebound.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), o...)
	t.Cleanup(cancel)
	first, end := chromedp.NewContext(ctx)
	t.Cleanup(end)
	if err := chromedp.Do(first); err != nil {
		t.Fatal(err)
	}
	return first
}

// TestPage works with the page as a person does: opens a checkpoint, writes a recipe, runs it, and reads the report.
func TestPage(t *testing.T) {
	browser := startBrowser(t)
	gate := make(chan struct{})
	q := newSession(t, func(o *Options) {
		o.Merge.Planned = func(*plan.Plan) error { <-gate; return nil } // the run waits until it was seen
	})
	b := newTab(t, browser)
	b.do("opening the page", navigate(q.s.Launch()), sees("h1", "Files"), sees("td", "recipe, ties"))
	if address := value[string](b, `location.href`); strings.Contains(address, "key") {
		t.Errorf("the key stays in the address: %s", address)
	}
	b.fits("files")
	b.do("opening a checkpoint", press("a", "models/"), press("a", "base"), sees("h1", "models/base"), sees("td", "LlamaForCausalLM"),
		field("input[type=search]"), write("layers.1 q_proj"), sees("[role=status]", "1 of 39"), press("button", "model.layers.1.self_attn.q_proj.weight"),
		sees("th", "Standard deviation"), until(`document.querySelectorAll("figure rect").length === 64`))
	b.shoot("checkpoint")
	b.do("comparing", press("a", "Compare with another"), sees("h1", "Compare two"), field("label:nth-of-type(2) input"), write("models/ft1"), press("button", "Compare"),
		sees("h2", "39 of 39 tensors differ"), press("button", "Largest difference"), sees("th[aria-sort=descending]", "Largest difference"))
	b.fits("compare")

	b.do("a good recipe", press("header a", "Files"), sees("h1", "Files"), press("nav.crumbs a", "folder"), press("a", "ties.yml"),
		sees(".good", "can be run"), sees("td", "39 tensors"), sees("h2", "TIES"))
	b.do("an error with its line", cursor("merge_method: ties"), write("s"), sees(".problems .error", "at line 2, column 15"), sees(".problems .error", `did you mean "ties"?`),
		sees(".gutter .error", "2"), until(`document.querySelector(".run-form button.first").disabled`))
	b.shoot("error")
	b.do("going to its place", cursor("dtype: bfloat16"), press(".problems button", "Error at line 2, column 15"),
		until(`document.activeElement.tagName === "TEXTAREA" && document.activeElement.value.slice(0, document.activeElement.selectionStart).endsWith("merge_method: ")`))
	b.do("the fix", cursor("merge_method: tiess"), write(kb.Backspace), sees(".good", "can be run"))
	b.do("completing a key", cursor("dtype: bfloat16"), write(kb.Enter), write("out"), sees("[role=option][aria-selected=true]", "out_dtype"))
	b.do("completing its value", write(kb.Enter), sees("[role=option]", "float16"), write("float3"), sees("[role=option][aria-selected=true]", "float32"), write(kb.Tab), misses(".menu"))
	want := strings.TrimSuffix(recipeText, "\n") + "\nout_dtype: float32\n"
	if text := value[string](b, `document.querySelector("textarea").value`); text != want {
		t.Errorf("the recipe is\n%s\nwant\n%s", text, want)
	}
	b.do("the plan follows", sees(".good", "can be run"), sees(".plan td", "238 kB"))
	b.do("completing a model", cursor("model: models/ft2"), write(kb.Backspace), completeKey(), sees("[role=option][aria-selected=true]", "models/ft1"), sees("[role=option]", "models/ft2"),
		sees(".problems .error", "at line 7, column 12"))
	b.shoot("completion")
	b.do("choosing by arrow", completeKey(), sees("[role=option][aria-selected=true]", "models/ft1"), write(kb.ArrowDown), sees("[role=option][aria-selected=true]", "models/ft2"), write(kb.Enter), misses(".menu"))
	b.do("completing a parameter", cursor("weight: 0.5, density: 0.5"), write(", "), completeKey(), act(chromedp.Sleep(300*time.Millisecond)), misses(".menu")) // both are there
	b.do("undoing", write(kb.Backspace+kb.Backspace), sees(".good", "can be run"))
	b.do("leaving the list", cursor("out_dtype: float32"), completeKey(), act(chromedp.Sleep(300*time.Millisecond)), cursor("dtype: bfloat16"), write(kb.Backspace), completeKey(), sees("[role=option]", "bfloat16"), write(kb.Escape), misses(".menu"), write("6"))
	b.fits("recipe")
	if text := value[string](b, `document.querySelector("textarea").value`); text != want {
		t.Errorf("the recipe is\n%s\nwant\n%s", text, want)
	}
	// A draft outlives a look at another part.
	b.do("away and back", press("header a", "Files"), sees("h1", "Files"), press("header a", "Recipe"), until(`document.querySelector("textarea")?.value.includes("out_dtype: float32")`))

	other := newTab(t, browser)
	b.do("running", sees(".good", "can be run"), field(".run-form label:first-child input"), write("out"), press("button", "Save and run"), sees("h1", "Merging: out"))
	other.do("a second page", navigate(q.s.Launch()), sees(".runbar", "Merging out"))
	close(gate)
	b.do("the end", sees("h1", "Done: out"), sees("td", "238 kB of 238 kB"), sees("th", "Peak memory"))
	b.shoot("run")
	other.do("the second page sees the end", navigate(q.base+"/#/run"), sees("h1", "Done: out"))
	if saved, err := os.ReadFile(filepath.Join(q.dir, "ties.yml")); err != nil || string(saved) != want {
		t.Errorf("the recipe that was run is not in its file: %v\n%s", err, saved)
	}

	b.do("the report", press("a", "See the report"), until(`document.querySelector("iframe.report")?.getAttribute("sandbox") === "" && document.querySelector("iframe.report").contentDocument === null`),
		act(chromedp.Sleep(time.Second)))
	b.shoot("report")
	b.do("the card", press("button", "Model card"), sees("pre", "merge_method: ties"), press("button", "Provenance"), sees("pre", `"merge_method"`))
	b.unscathed()
	other.do("the report in a tab of its own", navigate(q.base+"/report/out/report.html"), sees("h1", "Merge: out"))
	other.unscathed()
	if q.end() {
		t.Error("a run was interrupted, and none was under way")
	}
	b.do("the end of the program", sees("[role=alert]", "The program does not answer"))
}

// TestOtherSites sees in a browser that has the cookie what pages from elsewhere can do: nothing.
func TestOtherSites(t *testing.T) {
	browser := startBrowser(t)
	q := newSession(t)
	b := newTab(t, browser)
	b.do("opening the page", navigate(q.s.Launch()), sees("h1", "Files"))

	// Another server on the loopback address is the nearest that a site can be: cookies do not tell ports apart, but paths.
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c := r.Header.Get("Cookie"); c != "" {
			t.Errorf("a server on another port gets the cookie: %s", c)
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<form method="post" action="%s/api/run" enctype="text/plain"><input name='{"recipe":"ties.yml","output":"x","a":"' value='"}'></form><p>elsewhere</p>`, q.base)
	}))
	defer evil.Close()
	tried := func(code string) string {
		t.Helper()
		return value[string](b, `(async () => { try { const r = await (`+code+`); return r.type + " " + r.status + " " + (await r.text()); } catch (e) { return "failed"; } })()`)
	}
	if own := tried(`fetch("api/session")`); !strings.Contains(own, "200") || !strings.Contains(own, filepath.Base(q.dir)) {
		t.Fatalf("the page itself: %s", own)
	}
	b.do("another site", navigate(evil.URL), sees("p", "elsewhere"))
	for _, code := range []string{
		`fetch("` + q.base + `/api/session", {credentials: "include"})`,
		`fetch("` + q.base + `/api/run", {method: "DELETE", credentials: "include"})`,
		`fetch("` + q.base + `/api/recipe", {method: "PUT", credentials: "include", headers: {"Content-Type": "application/json"}, body: "{}"})`,
	} {
		if said := tried(code); said != "failed" {
			t.Errorf("%s from another site: %s", code, said)
		}
	}
	if said := tried(`fetch("` + q.base + `/api/session", {mode: "no-cors", credentials: "include"})`); said != "opaque 0 " && said != "failed" {
		t.Errorf("no-cors: %s", said)
	}
	if n := value[string](b, `new Promise((done) => { const f = document.createElement("iframe"); f.onload = () => { try { done(f.contentDocument ? "empty" : "hidden"); } catch (e) { done("hidden"); } }; f.src = "`+q.base+`/"; document.body.append(f); })`); n != "hidden" {
		t.Errorf("a frame: %s", n)
	}
	b.do("a form of another site", until(`(document.forms[0].submit(), true)`), sees("body", "refused: the request comes from another site"))

	// A name that leads to this machine.
	rebound := fmt.Sprintf("http://rebound.example:%d/", q.s.guard.port)
	b.do("a rebound name", navigate(rebound), sees("body", "refused: this server answers to 127.0.0.1"))
	if said := tried(`fetch("/api/session")`); !strings.Contains(said, "403") || strings.Contains(said, q.dir) {
		t.Errorf("from a rebound name: %s", said)
	}
	b.do("a rebound name with the key", navigate(rebound+"?key="+q.s.guard.key), sees("body", "refused: this server answers to 127.0.0.1"))
	b.do("without the cookie", navigate(fmt.Sprintf("http://localhost:%d/", q.s.guard.port)), sees("body", "open the address that 'mergekit ui' has printed"))
	if r, _ := q.s.runs.see(); r.State != runNone {
		t.Errorf("another site has begun a run: %+v", r)
	}
}
