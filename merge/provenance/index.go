package provenance

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"

	"github.com/mergekit/mergekit/tensors"
)

var shardName = regexp.MustCompile(`^([^/]+)-[0-9]{5}-of-[0-9]{5}(\.safetensors)$`)

// index is the name of the index that goes with the shards of the record; "" if the weights are one file.
func (r *Record) index() string {
	for _, f := range r.Outputs {
		if m := shardName.FindStringSubmatch(f.Name); m != nil {
			return m[1] + m[2] + ".index.json"
		}
	}
	return ""
}

// maxIndex is the most that an index is read of; one of a million tensors is smaller.
const maxIndex = 256 << 20

// CheckIndex compares the index of a sharded output, of which the record has no hash, with the shards' headers, which it follows from. It
// finds nothing where shards cannot be opened: that shows by itself.
func (r *Record) CheckIndex(dir string) ([]Finding, error) {
	name := r.index()
	if name == "" {
		return nil, nil
	}
	want, total := map[string]string{}, int64(0)
	for _, f := range r.Outputs {
		if shardName.FindStringSubmatch(f.Name) == nil {
			continue
		}
		c, err := tensors.Open(filepath.Join(dir, f.Name))
		if err != nil {
			return nil, nil //nolint:nilerr // Check says what became of the shard
		}
		for _, t := range c.Names() {
			want[t] = f.Name
		}
		total += c.TotalBytes()
		if err := c.Close(); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(dir, name)
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{{name, Missing}}, nil
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular() || st.Size() > maxIndex:
		return []Finding{{name, Changed}}, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var got struct {
		Metadata  map[string]any    `json:"metadata"`
		WeightMap map[string]string `json:"weight_map"`
	}
	if json.Unmarshal(text, &got) != nil || got.Metadata["total_size"] != float64(total) || len(got.Metadata) != 1 || !maps.Equal(got.WeightMap, want) {
		return []Finding{{name, Changed}}, nil
	}
	return []Finding{{name, Same}}, nil
}
