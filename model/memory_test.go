package model

import (
	"errors"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	err := explain("forward", "block 3", errors.New("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes\nstack"))
	var full *MemoryError
	if !errors.As(err, &full) || !strings.Contains(err.Error(), "mergekit plan") || strings.Contains(err.Error(), "stack") {
		t.Errorf("%v", err)
	}
	inner := errors.New(`PJRT error (code=13): YNNPACK operation failed: error`)
	if err := explain("forward", "block 3", inner); !errors.As(err, &full) || !strings.Contains(err.Error(), "YNNPACK") || !strings.Contains(err.Error(), "micro_batch") {
		t.Errorf("%v", err)
	}
	cause := errors.New("INTERNAL: no")
	if err := explain("forward", "block 3", cause); !errors.Is(err, cause) || err.Error() != "forward of block 3: INTERNAL: no" {
		t.Errorf("%v", err)
	}
}
