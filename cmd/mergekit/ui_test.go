package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestUI starts the program as a user does, opens its address, and ends it by Ctrl-C.
func TestUI(t *testing.T) {
	models, err := filepath.Abs("../../testdata/golden/models")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "ui", models, "--no-browser", "--json", "--backend", "go", "--threads", "2")
	cmd.Env = append(os.Environ(), killVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	defer func() { _ = cmd.Process.Kill() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- cmd.Wait() }()
	var said struct{ Event, URL, Dir string }
	if err := json.Unmarshal([]byte(line), &said); err != nil || said.Event != "listening" || said.Dir != models || !strings.HasPrefix(said.URL, "http://127.0.0.1:") {
		t.Fatalf("%s: %v", line, err)
	}
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar, Timeout: time.Minute}
	at := "" // where the last request has led
	get := func(url string) string {
		r, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		at = r.Request.URL.String()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d %s", r.StatusCode, b)
	}
	if page := get(said.URL); !strings.HasPrefix(page, "200") || !strings.Contains(page, `<script type="module" src="app.js">`) {
		t.Errorf("the page: %s", page)
	}
	if list := get(at + "api/models"); !strings.Contains(list, `"path":"base"`) || !strings.Contains(list, `"kind":"adapter"`) {
		t.Errorf("models: %s", list)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("ended by Ctrl-C: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("Ctrl-C does not end it")
	}
}
