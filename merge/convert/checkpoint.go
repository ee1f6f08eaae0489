package convert

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/tensors"
)

// Checkpoint writes the checkpoint at src (a directory, an index or a file, in any format but GGUF, which FromGGUF has) to the directory
// out: float tensors as o.DType, all others as they are, in the same order, with the files beside the weights. In config.json the dtype
// follows, and quantised weights, which are written as what they stand for, are no longer mentioned. A converted value is rounded to
// nearest, ties to even; what is too large for an 8-bit float becomes the largest that there is.
func Checkpoint(ctx context.Context, src, out string, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c, err := checkpoint.Open(src)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	dir := filepath.Dir(c.Files()[0])
	if err := refuseInside(dir, out); err != nil {
		return nil, err
	}
	x := &output{metadata: c.Metadata(), id: newIdentity("safetensors", o)}
	if err := identify(x.id, c.Files()); err != nil {
		return nil, err
	}
	if err := x.tensors(c, o); err != nil {
		return nil, err
	}
	var warnings []string
	if ownsDirectory(src) {
		if warnings, err = x.beside(dir, o.DType); err != nil {
			return nil, err
		}
	}
	r, err := x.write(ctx, out, o)
	if err != nil {
		return nil, err
	}
	r.Warnings = warnings
	return r, nil
}

// identify adds what tells the files of a checkpoint from others: headers, sizes, and times of change because headers do not
// tell weights apart.
func identify(id identity, files []string) error {
	for _, f := range files {
		digest, err := tensors.HeaderDigest(f)
		if err != nil {
			return err
		}
		st, err := os.Stat(f)
		if err != nil {
			return fmt.Errorf("cannot look at the input: %w", err)
		}
		id.add(filepath.Base(f), digest, st.ModTime().UTC().String())
	}
	return nil
}

// tensors lists all tensors of a checkpoint.
func (x *output) tensors(c *tensors.Checkpoint, o Options) error {
	for _, name := range c.Names() {
		r, err := c.Reader(name)
		if err != nil {
			return err
		}
		info := r.Info
		if o.DType != nil && info.DType.IsFloat() {
			info.DType = *o.DType
		}
		x.infos = append(x.infos, info)
		x.from = append(x.from, &reading{r, info.DType})
	}
	return nil
}

// reading is a tensor of an open checkpoint.
type reading struct {
	r  *tensors.Reader
	to tensors.DType
}

// input translates a range of the output to one of the stored tensor.
func (m *reading) input(off, n int64) (int64, int64) {
	if m.to == m.r.DType { // also the types that are smaller than a byte
		return off, n
	}
	in, out := int64(m.r.DType.Size()), int64(m.to.Size())
	return off / out * in, n / out * in
}

func (m *reading) bytes(b *buffers, off, n int64) ([]byte, error) {
	from, count := m.input(off, n)
	m.r.WillNeed(from, count)
	var raw []byte
	if !m.r.Stored() {
		raw = grown(&b.raw, int(count))
	}
	data, err := m.r.Bytes(from, count, raw)
	if err != nil || m.to == m.r.DType {
		return data, err
	}
	out := grown(&b.out, int(n))
	if err := tensors.ConvertSaturating(out, m.to, data, m.r.DType); err != nil {
		return nil, fmt.Errorf("tensor %q: %w", m.r.Name, err)
	}
	return out, nil
}

func (m *reading) release(off, n int64) {
	from, count := m.input(off, n)
	m.r.Release(from, count)
}

// ownsDirectory reports whether the files beside src belong to it: not if src is one file under a name of its own.
func ownsDirectory(src string) bool {
	if st, err := os.Stat(src); err == nil && st.IsDir() {
		return true
	}
	name := filepath.Base(src)
	return strings.HasSuffix(name, ".index.json") || name == "model.safetensors" || name == "pytorch_model.bin" || strings.HasPrefix(name, "diffusion_pytorch_model.")
}

// sideKinds are the extensions of files that belong to a model beside its weights; sideNames the names without any.
var (
	sideKinds = []string{".json", ".jinja", ".txt", ".model", ".py", ".md", ".yml", ".yaml", ".tiktoken", ".vocab"}
	sideNames = []string{"LICENSE", "NOTICE", "USE_POLICY"}
)

// maxConfig bounds the config.json that is read into memory.
const maxConfig = 64 << 20

// beside finds the files to copy and patches config.json.
func (x *output) beside(dir string, dtype *tensors.DType) (warnings []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the input: %w", err)
	}
	x.copies, x.files = map[string]string{}, map[string][]byte{}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".index.json") ||
			!slices.Contains(sideKinds, strings.ToLower(filepath.Ext(name))) && !slices.Contains(sideNames, name) {
			continue
		}
		path := filepath.Join(dir, name)
		st, err := os.Stat(path) // caches have links to the files
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		x.copies[name] = path
		if name != "config.json" || dtype == nil {
			continue
		}
		if st.Size() > maxConfig {
			return nil, &tensors.FormatError{File: path, Msg: fmt.Sprintf("has %d bytes, too many for a configuration", st.Size()), Hint: "check the file"}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read the configuration: %w", err)
		}
		plain, err := checkpoint.PlainConfig(text)
		if err != nil {
			warnings = append(warnings, err.Error()+"; only its dtype was changed")
			plain = text
		}
		delete(x.copies, name)
		x.files[name] = patchDType(plain, *dtype)
	}
	return warnings, nil
}

// dtypeSetting is either spelling of the setting, old and new, also in the configurations of a model's parts.
var dtypeSetting = regexp.MustCompile(`"(torch_dtype|dtype)"(\s*:\s*)(?:"[^"]*"|null)`)

// patchDType sets the dtype in the text of a configuration. The text stays as it is otherwise: Python writes numbers that
// are not JSON (Infinity), and people want to compare.
func patchDType(text []byte, dtype tensors.DType) []byte {
	name := dtype.TorchName()
	if dtypeSetting.Match(text) {
		return dtypeSetting.ReplaceAll(text, []byte(`"$1"$2"`+name+`"`))
	}
	open := strings.IndexByte(string(text), '{')
	if open < 0 {
		return text
	}
	rest := text[open+1:]
	setting := "\n  \"torch_dtype\": \"" + name + "\""
	if !strings.HasPrefix(strings.TrimSpace(string(rest)), "}") {
		setting += ","
	}
	return slices.Concat(text[:open+1], []byte(setting), rest)
}
