package tensors

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSaveFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.safetensors")
	infos := []Info{{Name: "a", DType: U8, Shape: []int{3}}, {Name: "b", DType: F32, Shape: []int{1, 2}}, {Name: "none", DType: F32, Shape: []int{0}}}
	data := [][]byte{{1, 2, 3}, {0, 0, 128, 63, 0, 0, 0, 64}, {}}
	for range 2 { // the second time it replaces the first
		if err := SaveFile(path, infos, data, map[string]string{"made": "here"}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, info := range infos {
		v, err := c.View(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(v.Data, data[i]) {
			t.Errorf("%s: %v", info.Name, v.Data)
		}
	}
	if m := c.Metadata(); m["format"] != "pt" || m["made"] != "here" {
		t.Errorf("metadata %v", m)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left beside it: %v, %v", entries, err)
	}
}

func TestSaveFileErrors(t *testing.T) {
	dir := t.TempDir()
	one := []Info{{Name: "a", DType: U8, Shape: []int{1}}}
	var format *FormatError
	if err := SaveFile(dir, one, [][]byte{{1}}, nil); !errors.As(err, &format) {
		t.Errorf("a directory: %v", err)
	}
	err := SaveFile(filepath.Join(dir, "none", "out.safetensors"), one, [][]byte{{1}}, nil)
	if err == nil || !strings.Contains(err.Error(), "directory exists") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if err := SaveFile(filepath.Join(dir, "x"), one, [][]byte{{1, 2}}, nil); err == nil || !strings.Contains(err.Error(), "2 bytes") {
		t.Errorf("wrong size: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
}
