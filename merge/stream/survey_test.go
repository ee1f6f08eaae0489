package stream_test

import (
	"errors"
	"testing"

	"github.com/mergekit/mergekit/internal/backend/block"
	"github.com/mergekit/mergekit/merge/stream"
)

// The counts of a survey are within the bound on memory: they take workers, and where one is left, the bound is refused.
func TestSurveyMemory(t *testing.T) {
	b := block.New()
	const inputs, bound = 17, 320 << 20
	plain, err := stream.NewEngine(b, stream.Options{Threads: 8, MaxMemory: bound, Inputs: inputs})
	if err != nil {
		t.Fatal(err)
	}
	counted, err := stream.NewEngine(b, stream.Options{Threads: 8, MaxMemory: bound, Inputs: inputs, Survey: true})
	if err != nil || counted.Threads() >= plain.Threads() || counted.Threads() < 1 {
		t.Errorf("%d workers with a survey, %d without: %v", counted.Threads(), plain.Threads(), err)
	}
	tight := int64(104 << 20)
	if _, err := stream.NewEngine(b, stream.Options{MaxMemory: tight, Inputs: inputs}); err != nil {
		t.Error(err)
	}
	var need *stream.MemoryError
	if _, err := stream.NewEngine(b, stream.Options{MaxMemory: tight, Inputs: inputs, Survey: true}); !errors.As(err, &need) || need.Need <= tight {
		t.Errorf("%v: the survey of sixteen models does not fit", err)
	}
}
