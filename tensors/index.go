package tensors

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
)

// index is a model.safetensors.index.json or a pytorch_model.bin.index.json: which shard holds which tensor.
type index struct {
	file  map[string]string // tensor name -> file name
	names []string          // in the index's order
	files []string          // sorted
}

func (k Kind) readIndex(path string) (*index, error) {
	st, err := os.Stat(path) // before reading, which would wait for ever on a pipe and never end on a device
	if err == nil && !st.Mode().IsRegular() {
		return nil, &FormatError{File: path, Msg: "is not a regular file", Hint: "check the path"}
	}
	if err == nil && st.Size() > maxHeader {
		return nil, &FormatError{File: path, Msg: fmt.Sprintf("is no index: it has %s bytes, at most %s are allowed", group(st.Size()), group(maxHeader)), Hint: downloadAgain}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	x, err := k.parseIndex(data)
	if err != nil {
		return nil, &FormatError{File: path, Msg: err.Error(), Hint: downloadAgain}
	}
	return x, nil
}

// parseIndex reads {"metadata": ..., "weight_map": {tensor: file}}. File names must be plain: an index can not reach out of
// its directory.
func (k Kind) parseIndex(data []byte) (*index, error) {
	s, err := newScanner(data)
	if err != nil {
		return nil, err
	}
	var x *index
	err = s.object(func(key string) error {
		if key != "weight_map" {
			return s.skip(0)
		}
		if x != nil {
			return fmt.Errorf("has weight_map twice")
		}
		x = &index{file: map[string]string{}}
		return s.object(x.member(s, k))
	})
	if err == nil {
		err = s.end()
	}
	switch {
	case err != nil:
		return nil, err
	case x == nil:
		return nil, fmt.Errorf("has no weight_map")
	case len(x.names) == 0:
		return nil, fmt.Errorf("lists no tensors")
	}
	slices.Sort(x.files)
	return x, nil
}

// member reads one entry of the weight map.
func (x *index) member(s *scanner, k Kind) func(name string) error {
	known := map[string]struct{}{}
	return func(name string) error {
		file, err := s.str()
		if err != nil {
			return err
		}
		if _, twice := x.file[name]; twice {
			return fmt.Errorf("lists %s twice", show(name))
		}
		if !plainName(file) {
			return fmt.Errorf("places %s in %s, which is not a plain file name", show(name), show(file))
		}
		if !strings.HasSuffix(file, k.Suffix) {
			return fmt.Errorf("places %s in %s, which is not a %s file", show(name), show(file), strings.TrimPrefix(k.Suffix, "."))
		}
		if _, ok := known[file]; !ok {
			known[file] = struct{}{}
			x.files = append(x.files, file)
		}
		x.file[name] = file
		x.names = append(x.names, name)
		return nil
	}
}

// plainName reports whether a name is a file's in its directory and nothing else, on any system.
func plainName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\\:\x00")
}

// numberedShards understands model-00002-of-00004.safetensors and returns the shards' common name, number and count.
func (k Kind) numberedShards(name string) (stem string, i, n int, ok bool) {
	rest, found := strings.CutSuffix(name, k.Suffix)
	at := strings.LastIndex(rest, "-of-")
	if !found || at < 0 {
		return "", 0, 0, false
	}
	dash := strings.LastIndex(rest[:at], "-")
	if dash < 0 {
		return "", 0, 0, false
	}
	i, ok1 := decimal(rest[dash+1 : at])
	n, ok2 := decimal(rest[at+4:])
	return rest[:dash], i, n, ok1 && ok2 && i >= 1 && i <= n
}

func decimal(s string) (n int, ok bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' || n > 1e6 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, s != ""
}

// missingShards returns the numbers that a set of numbered shard files lacks, and false if the files are no such set.
func (k Kind) missingShards(files []string) (missing []int, total int, ok bool) {
	var stem string
	have := map[int]bool{}
	for j, f := range files {
		s, i, n, numbered := k.numberedShards(f)
		if !numbered || j > 0 && (s != stem || n != total) {
			return nil, 0, false
		}
		stem, total = s, n
		have[i] = true
	}
	for i := 1; i <= total; i++ {
		if !have[i] {
			missing = append(missing, i)
		}
	}
	slices.SortFunc(missing, cmp.Compare[int])
	return missing, total, total > 0
}
