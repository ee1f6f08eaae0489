package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
