package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// What the manifests in configs/cluster say is run here as the cluster would: every part a process of its own, several at a time, one of them
// killed and repeated. What is joined has the bytes of a single run.
func TestClusterManifests(t *testing.T) {
	root := t.TempDir()
	noise(t, filepath.Join(root, "base"), 1, 60)
	noise(t, filepath.Join(root, "tuned"), 2, 60)
	recipe := filepath.Join(root, "recipe.yml")
	text := "merge_method: dare_ties\nbase_model: base\nmodels:\n- {model: tuned, parameters: {weight: 0.7, density: 0.4}}\ndtype: bfloat16\n"
	if err := os.WriteFile(recipe, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(root, "mergekit")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	environment := append(os.Environ(), killVariable+"=1", "PATH="+root+":"+os.Getenv("PATH"))
	whole := exec.Command(program, "merge", recipe, filepath.Join(root, "whole", "out"), "--backend", "go", "--quiet", "--shard-size", "1MB")
	whole.Env = environment
	if out, err := whole.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := content(t, filepath.Join(root, "whole", "out"))

	slurm := func(script, out string, more ...string) *exec.Cmd {
		c := exec.Command("../../configs/cluster/"+script, recipe, out)
		c.Env = append(append(environment, "OPTIONS=--shard-size 1MB --backend go --quiet"), more...)
		return c
	}
	pods := manifest(t)
	pod := func(i int, out string, more ...string) *exec.Cmd {
		c := exec.Command(pods[i].command[0], append(pods[i].command[1:], strings.ReplaceAll(pods[i].script, "--shard-size 2GB", "--shard-size 1MB --backend go --quiet"))...)
		c.Env = append(append(append(environment, pods[i].env...), "RECIPE="+recipe, "OUT="+out), more...)
		return c
	}
	for _, c := range []struct {
		name  string
		parts int
		part  func(i int, out string) *exec.Cmd
		join  func(out string) *exec.Cmd
	}{
		{"slurm", 5, func(i int, out string) *exec.Cmd {
			return slurm("slurm-merge.sh", out, fmt.Sprintf("SLURM_ARRAY_TASK_ID=%d", i+3), "SLURM_ARRAY_TASK_MIN=3", "SLURM_ARRAY_TASK_COUNT=5")
		}, func(out string) *exec.Cmd { return slurm("slurm-join.sh", out) }},
		{"kubernetes", pods[0].completions, func(i int, out string) *exec.Cmd { return pod(0, out, fmt.Sprintf("JOB_COMPLETION_INDEX=%d", i)) },
			func(out string) *exec.Cmd { return pod(1, out) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(root, c.name, "out")
			if err := os.MkdirAll(filepath.Dir(out), 0o777); err != nil {
				t.Fatal(err)
			}
			kill(t, c.part(1, out), filepath.Join(filepath.Dir(out), fmt.Sprintf(".out.part-2-of-%d", c.parts)))
			if text, err := c.join(out).CombinedOutput(); err == nil || !bytes.Contains(text, []byte(fmt.Sprintf("part 2/%d is not finished", c.parts))) {
				t.Fatalf("joined without part 2: %v\n%s", err, text)
			}
			var running []*exec.Cmd
			var said []*bytes.Buffer
			for i := range c.parts {
				cmd, b := c.part(i, out), &bytes.Buffer{}
				cmd.Stdout, cmd.Stderr = b, b
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				running, said = append(running, cmd), append(said, b)
			}
			for i, cmd := range running {
				if err := cmd.Wait(); err != nil {
					t.Fatalf("part %d: %v\n%s", i+1, err, said[i])
				}
			}
			if text, err := c.join(out).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			got := content(t, out)
			for name := range want {
				if got[name] != want[name] {
					t.Errorf("%s differs from that of a single run", name)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d files, a single run has %d", len(got), len(want))
			}
			if left, _ := os.ReadDir(filepath.Dir(out)); len(left) != 1 {
				t.Errorf("beside the output is left: %v", left)
			}
		})
	}
}

// kill starts a part and kills it once its directory is there.
func kill(t *testing.T, c *exec.Cmd, dir string) {
	t.Helper()
	for range 20 {
		cmd := *c
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if _, err := os.Stat(filepath.Join(dir, "journal")); err == nil {
				break
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if _, err := os.Stat(filepath.Join(dir, "journal")); err == nil {
			if _, err := os.Stat(filepath.Join(dir, "part.json")); err != nil {
				return
			}
		}
		if err := os.RemoveAll(dir); err != nil { // too late: again
			t.Fatal(err)
		}
	}
	t.Fatal("the part was always faster than its kill")
}

// job is what a Job's pods run.
type job struct {
	completions int
	command     []string
	script      string
	env         []string
}

// manifest reads configs/cluster/kubernetes.yml.
func manifest(t *testing.T) (list []job) {
	t.Helper()
	text, err := os.ReadFile("../../configs/cluster/kubernetes.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split(string(text), "\n---\n") {
		var m struct {
			Kind string
			Spec struct {
				Completions int
				Template    struct {
					Spec struct {
						Containers []struct {
							Command, Args []string
							Env           []struct{ Name, Value string }
						}
					}
				}
			}
		}
		if err := yaml.Unmarshal([]byte(doc), &m); err != nil {
			t.Fatal(err)
		}
		if m.Kind != "Job" || len(m.Spec.Template.Spec.Containers) != 1 || len(m.Spec.Template.Spec.Containers[0].Args) != 1 {
			t.Fatalf("no Job of one container with one argument: %+v", m)
		}
		c := m.Spec.Template.Spec.Containers[0]
		one := job{completions: m.Spec.Completions, command: c.Command, script: c.Args[0]}
		for _, e := range c.Env {
			one.env = append(one.env, e.Name+"="+e.Value)
			if e.Name == "PARTS" && len(list) == 0 && e.Value != fmt.Sprint(one.completions) {
				t.Errorf("%d completions, and PARTS says %s", one.completions, e.Value)
			}
		}
		list = append(list, one)
	}
	if len(list) != 2 {
		t.Fatalf("%d Jobs, want 2", len(list))
	}
	return list
}
