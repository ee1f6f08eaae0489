package main

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the scripts call the program under all of its names.
func TestMain(m *testing.M) {
	asProgram()
	program := func() { os.Exit(run(context.Background(), os.Args)) }
	names := map[string]func(){"mergekit": program}
	for name := range peerCommands() {
		names[name] = program
	}
	testscript.Main(m, names)
}

// TestScripts runs the verbs as a user does: testdata/script/*.txt, one story each. $MODELS is the folder of small
// checkpoints.
func TestScripts(t *testing.T) {
	models, err := filepath.Abs("../../testdata/golden/models")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := filepath.Abs("../../testdata/golden/cases")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("MODELS", models)
			e.Setenv("CASES", cases)
			e.Setenv("HF_HUB_OFFLINE", "1") // scripts ask no hub but their own
			e.Setenv("XLA", xlaPlugin())    // scripts have no home, where it is looked for
			e.Setenv("FORWARD", filepath.Join(filepath.Dir(models), "forward"))
			e.Setenv("PLAIN", filepath.Join(models, "../../../model/testdata/plain"))
			e.Setenv("WM", filepath.Join(filepath.Dir(models), "wm"))
			e.Setenv("TRAIN", filepath.Join(filepath.Dir(models), "train"))
			return nil
		},
		Condition: conditionXLA,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"truncate":    truncateCommand,
			"status":      statusCommand,
			"safetensors": safetensorsCommand,
			"subst":       substCommand,

			"logits-golden":      logitsGoldenCommand,
			"classifier-adapter": classifierAdapterCommand,
			"network":            networkCommand,
			"examples":           examplesCommand,
			"fakehub":            fakehubCommand,
			"hubfault":           hubfaultCommand,
			"large":              largeCommand,
			"fakestore":          fakestoreCommand,
		},
	})
}

// truncateCommand: truncate FILE BYTES.
func truncateCommand(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}

// statusCommand: status N COMMAND... runs a command and checks its exit status, which exec alone does not.
func statusCommand(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		exit, ok := err.(interface{ ExitCode() int })
		if !ok {
			ts.Fatalf("%v: %v", args[1:], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v: exit status %d, want %d", args[1:], got, want)
	}
}

// safetensorsCommand: safetensors FILE HEADER DATABYTES writes a file with that header, as it stands, and zeros for data.
func safetensorsCommand(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(args[1])))
	b = append(append(b, args[1]...), make([]byte, n)...)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o666))
}

// substCommand: subst FILE... replaces $VARIABLES inside files.
func substCommand(ts *testscript.TestScript, _ bool, args []string) {
	for _, f := range args {
		b, err := os.ReadFile(ts.MkAbs(f))
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(f), []byte(os.Expand(string(b), ts.Getenv)), 0o666))
	}
}
