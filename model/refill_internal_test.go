package model

import (
	"context"
	"path/filepath"
	"reflect"
	"testing"
)

// programs counts what was compiled. The library keeps it to itself.
func (m *Model) programs() (n int) {
	for _, e := range m.execs.list {
		n += reflect.ValueOf(e).Elem().FieldByName("cache").Len()
	}
	return n
}

// TestRefillCompilesOnce sees that a model with other weights needs no other programs.
func TestRefillCompilesOnce(t *testing.T) {
	b := goBackend(t)
	m, err := Load(context.Background(), filepath.Join(goldenModels, "llama"), Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	count := 0
	for i := range 3 {
		err := m.Refill(context.Background(), func(_ string, shape []int) ([]float32, error) {
			n := 1
			for _, d := range shape {
				n *= d
			}
			x := make([]float32, n)
			for k := range x {
				x[k] = float32(i)
			}
			return x, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Forward(Input{Rows: 1, Length: 3, IDs: []int32{1, 2, 3}}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			count = m.programs()
		}
	}
	if count == 0 || m.programs() != count {
		t.Errorf("%d programs at first and %d at last", count, m.programs())
	}
}
