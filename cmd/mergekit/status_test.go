package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// TestStatusOf maps every kind of error about models and their texts, also where it is wrapped.
func TestStatusOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{&arch.ConfigError{}, exitBadInput},
		{&model.ConfigError{}, exitBadInput},
		{&model.MissingError{}, exitBadInput},
		{&model.ShapeError{}, exitBadInput},
		{&model.VocabularyError{}, exitBadInput},
		{&model.InputError{}, exitBadInput},
		{&adapter.Error{}, exitBadInput},
		{&align.Error{}, exitBadInput},
		{&symmetry.Error{}, exitBadInput},
		{&tokenizer.Error{}, exitBadInput},
		{&chat.Error{}, exitBadInput},
		{&chat.LookupError{}, exitBadInput},
		{&data.Error{}, exitBadInput},
		{&tensors.FormatError{}, exitBadInput},
		{&model.MemoryError{Err: errors.New("RESOURCE_EXHAUSTED")}, exitMemory},
		{usageError{errors.New("unknown")}, exitBadInput},
		{errors.New("disk"), exitFailed},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.ENOTDIR}, exitBadInput},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, exitBadInput},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.EIO}, exitFailed},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, exitFailed},
	} {
		for _, err := range []error{c.err, fmt.Errorf("rows.jsonl:3: %w", c.err)} {
			if got := statusOf(context.Background(), err); got != c.want {
				t.Errorf("%T: status %d, want %d", c.err, got, c.want)
			}
		}
	}
}

// TestInterruptedAsJSON: with --json also what is interrupted says so on standard output, as every other end does.
func TestInterruptedAsJSON(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = write
	status := run(ctx, []string{"mergekit", "diff", "../../testdata/golden/models/ft1", "../../testdata/golden/models/ft2", "--json"})
	os.Stdout = stdout
	write.Close()
	out, err := io.ReadAll(read)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var last struct {
		Event  string
		Status int
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Event != "interrupted" || last.Status != exitInterrupted || status != exitInterrupted {
		t.Errorf("status %d, said %q (%v)", status, out, err)
	}
}
