//go:build linux

package tensors

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// roleVariable makes the test binary play another part: a process that is killed, or one with its own mounts or user.
const roleVariable = "MERGEKIT_TEST_ROLE"

func TestMain(m *testing.M) {
	roles := map[string]func(dir string) error{"write": writeSlowly, "full": onFullDisk, "read-only": onReadOnlyDisk, "stranger": asStranger}
	role, dir, _ := strings.Cut(os.Getenv(roleVariable), ":")
	play, ok := roles[role]
	if !ok {
		os.Exit(m.Run())
	}
	if err := play(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is this binary in a role.
func child(role, dir string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), roleVariable+"="+role+":"+dir)
	return c
}

func slowSample() ([]Info, [][]byte) {
	var infos []Info
	var data [][]byte
	for i := range 40 {
		infos = append(infos, Info{fmt.Sprintf("w.%d", i), U8, []int{3000 + 100*i}})
		data = append(data, bytes.Repeat([]byte{byte(i), 3, 1}, (3000+100*i)/3+1)[:3000+100*i])
	}
	return infos, data
}

var slowOptions = WriteOptions{ShardBytes: 30000, Fingerprint: "slow", Resume: true}

// writeSlowly takes a tenth of a second at least; the journal is brought up to date after every tensor, so that most kills have something
// to take over.
func writeSlowly(dir string) error {
	infos, data := slowSample()
	w, err := Create(dir, infos, slowOptions)
	if err != nil {
		return err
	}
	for i := range infos {
		if w.Done(i) {
			continue
		}
		half := len(data[i]) / 2
		if err := w.WriteAt(i, data[i][:half], 0); err != nil {
			return err
		}
		time.Sleep(3 * time.Millisecond)
		if err := w.WriteAt(i, data[i][half:], int64(half)); err != nil {
			return err
		}
		if err := errors.Join(w.Finish(i), w.flusher.flush()); err != nil {
			return err
		}
		fmt.Println(i) // the killer counts the lines
	}
	if err := w.WriteFile("config.json", []byte("{}\n")); err != nil {
		return err
	}
	return w.Commit()
}

// TestKill kills a writer twenty times at random moments, and each time lets another finish its work, which may be killed
// too. The moment is a number of finished tensors and a little more, so that a slow machine tests as much as a quick one.
func TestKill(t *testing.T) {
	root := t.TempDir()
	whole := filepath.Join(root, "whole")
	if out, err := child("write", whole).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := files(t, whole)
	rng := rand.New(rand.NewPCG(20, 20))
	resumed := 0
	for k := range 20 {
		dir := filepath.Join(root, fmt.Sprint("out", k))
		for range 1 + k%2 { // every second one is killed twice
			c := child("write", dir)
			lines, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			finished := bufio.NewScanner(lines)
			for range rng.IntN(41) {
				if !finished.Scan() {
					break
				}
			}
			time.Sleep(time.Duration(rng.Int64N(int64(6 * time.Millisecond))))
			_ = c.Process.Kill()
			err = c.Wait()
			if _, e := os.Stat(dir); e == nil {
				break // it was faster; what appeared must be whole all the same
			}
			if err == nil {
				t.Fatal("finished without an output")
			}
		}
		if _, err := os.Stat(dir); err != nil {
			if text, err := os.ReadFile(filepath.Join(root, fmt.Sprintf(".out%d.partial", k), journalName)); err == nil {
				if _, done, _, _ := parseJournal(text); len(done) > 0 {
					resumed++
				}
			}
			if out, err := child("write", dir).CombinedOutput(); err != nil {
				t.Fatalf("kill %d: %v\n%s", k, err, out)
			}
		}
		same(t, files(t, dir), want)
		if t.Failed() {
			t.Fatalf("kill %d", k)
		}
	}
	if resumed < 5 {
		t.Errorf("only %d of 20 kills left something to take over: the test tests little", resumed)
	}
}

// expect checks an error of the output's disk.
func expect(err, cause error, says ...string) error {
	if !errors.Is(err, cause) {
		return fmt.Errorf("%w does not wrap %w", err, cause)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			return fmt.Errorf("%w; it does not say %q", err, s)
		}
	}
	return nil
}

// left checks that a directory holds nothing but the names.
func left(dir string, names ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		return fmt.Errorf("%s holds %v, want %v", dir, got, names)
	}
	return nil
}

// onFullDisk works in a tmpfs of 256 KiB.
func onFullDisk(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		return err
	}
	out := filepath.Join(dir, "out")
	_, err := Create(out, []Info{{"w", U8, []int{1 << 20}}}, WriteOptions{})
	if err := errors.Join(expect(err, syscall.ENOSPC, out+"/: ", "the output needs 1 048", "are free now", "choose another disk"), left(dir)); err != nil {
		return err
	}
	// The weights fit, what lies beside them does not.
	infos := []Info{{"w", U8, []int{180 << 10}}}
	w, err := Create(out, infos, WriteOptions{Fingerprint: "x"})
	if err != nil {
		return err
	}
	data := bytes.Repeat([]byte{5}, 180<<10)
	if err := errors.Join(w.WriteAt(0, data, 0), w.Finish(0)); err != nil {
		return err
	}
	err = w.WriteFile("tokenizer.json", data)
	if err := errors.Join(expect(err, syscall.ENOSPC, "go on with --resume"), w.Close(), left(dir, ".out.partial")); err != nil {
		return err
	}
	// With more room it goes on.
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
		return err
	}
	if w, err = Create(out, infos, WriteOptions{Fingerprint: "x", Resume: true}); err != nil {
		return err
	}
	if !w.Done(0) {
		return fmt.Errorf("what was finished is not taken over")
	}
	if err := errors.Join(w.WriteFile("tokenizer.json", data), w.Commit()); err != nil {
		return err
	}
	return left(dir, "out")
}

func onReadOnlyDisk(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_RDONLY, ""); err != nil {
		return err
	}
	_, err := Create(filepath.Join(dir, "out"), []Info{{"w", U8, []int{10}}}, WriteOptions{})
	return errors.Join(expect(err, syscall.EROFS, "out/: ", "choose a directory on a disk that can be written"), left(dir))
}

// asStranger writes into a directory that is another's.
func asStranger(dir string) error {
	if os.Getuid() == 0 {
		if err := syscall.Setuid(65534); err != nil {
			return err
		}
	}
	_, err := Create(filepath.Join(dir, "out"), []Info{{"w", U8, []int{10}}}, WriteOptions{})
	return errors.Join(expect(err, syscall.EACCES, "out/: ", "choose a directory that you may write in"), left(dir))
}

// TestDisks has mounts of its own, in a namespace of its own.
func TestDisks(t *testing.T) {
	for _, role := range []string{"full", "read-only"} {
		t.Run(role, func(t *testing.T) {
			c := child(role, t.TempDir())
			c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // which keeps its mounts to itself
			if os.Getuid() != 0 {
				c.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
				c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
				c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
			}
			out, err := c.CombinedOutput()
			if errors.Is(err, syscall.EPERM) || strings.TrimSpace(string(out)) == syscall.EPERM.Error() {
				t.Skip("this system lets no process mount a disk; TestFailingDisk has the same failures, injected")
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	// Not t.TempDir: its parents are closed to others.
	dir, err := os.MkdirTemp("", "mergekit")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	if out, err := child("stranger", dir).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
