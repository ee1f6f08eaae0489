package merge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// pipelineIndex is the file that makes a directory a pipeline of diffusers: it lists the components, each in a directory of its own.
const pipelineIndex = "model_index.json"

// maxPipelineIndex bounds it.
const maxPipelineIndex = 1 << 20

// pipeline is a merge of pipelines: directories of several models, of which each is merged with its like.
type pipeline struct {
	r          *recipe.Recipe
	dirs       map[place]string
	donor      string   // the directory whose other files the output gets
	components []string // with weights, in order
	o          Options
}

// place is what a reference means, wherever it stands in the recipe.
type place struct{ path, revision string }

func placeOf(ref recipe.ModelRef) place { return place{ref.Path, ref.Revision} }

// openPipeline sees whether the recipe's models are pipelines; nil if none is.
func openPipeline(r *recipe.Recipe, o Options) (*pipeline, error) {
	p := &pipeline{r: r, dirs: map[place]string{}, o: o}
	refs := r.References()
	var plain []string
	for _, ref := range refs {
		dir, ok, err := findPipeline(ref, r, o.Plan.Fetch, len(p.dirs) > 0)
		if err != nil {
			return nil, err
		}
		if ok {
			p.dirs[placeOf(ref)] = dir
		} else {
			plain = append(plain, ref.String())
		}
	}
	if len(p.dirs) == 0 {
		return nil, nil
	}
	bad := func(format string, args ...any) error {
		return &InputError{fmt.Errorf("%s: "+format, append([]any{r.File}, args...)...)}
	}
	if len(plain) > 0 {
		return nil, bad("%s is no pipeline (it has no %s) and others are; merge pipelines with pipelines, or name the directory of a component in each", plain[0], pipelineIndex)
	}
	for what, there := range map[string]bool{"slices": len(r.Slices) > 0, "modules": len(r.Modules) > 0, "align": r.Align != nil, "repair": r.Repair != nil, "evaluate": r.Evaluate != nil,
		"search": r.Search != nil, "tokenizer": r.Tokenizer != nil || r.TokenizerSource != "", "chat_template": r.ChatTemplate != "", "resumption in parts": o.Part.Of > 0, "a report": o.Report != ""} {
		if there {
			return nil, bad("pipelines are merged component by component, which has no %s; name the directory of a component in each model instead (%s)", what, filepath.Join(refs[0].Path, "unet"))
		}
	}
	for _, ref := range refs {
		if ref.LoraPath != "" {
			return nil, bad("%s: an adapter cannot be put on a pipeline; fuse it into its component first", ref)
		}
	}
	p.donor = p.dirs[placeOf(refs[0])] // the base if there is one
	var err error
	if p.components, err = componentsOf(p.donor); err != nil {
		return nil, &InputError{err}
	}
	for _, name := range p.components {
		for _, ref := range refs {
			if err := hasWeights(filepath.Join(p.dirs[placeOf(ref)], name)); err != nil {
				return nil, &InputError{fmt.Errorf("component %s of %s: %w", name, ref, err)}
			}
		}
	}
	return p, nil
}

// componentsOf lists the components of a pipeline that have weights.
func componentsOf(dir string) ([]string, error) {
	file := filepath.Join(dir, pipelineIndex)
	bad := func(msg string) error {
		return &tensors.FormatError{File: file, Msg: msg, Hint: "download it again"}
	}
	st, err := os.Stat(file)
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxPipelineIndex {
		return nil, bad("is no index of a pipeline")
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, bad("cannot be read: " + err.Error())
	}
	var index map[string]any
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, bad("is no index of a pipeline: " + err.Error())
	}
	var names []string
	for name, v := range index {
		if class, ok := v.([]any); !ok || len(class) != 2 || class[0] == nil { // _class_name and the like, and what a pipeline leaves out
			continue
		}
		if name != filepath.Base(name) || strings.ContainsAny(name, `/\`) || name == "." || name == ".." {
			return nil, bad(fmt.Sprintf("lists the component %.100q, which is no plain name", name))
		}
		switch err := hasWeights(filepath.Join(dir, name)); {
		case err == nil:
			names = append(names, name)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	if len(names) == 0 {
		return nil, bad("lists no component that has weights here")
	}
	slices.Sort(names)
	return names, nil
}

// hasWeights looks for weights in a component's directory; without any the error is fs.ErrNotExist.
func hasWeights(dir string) error {
	st, err := os.Stat(dir)
	if err != nil || !st.IsDir() {
		return &tensors.FormatError{File: dir, Msg: "is no directory", Hint: "the pipeline is incomplete; download it again", Err: fs.ErrNotExist}
	}
	_, err = checkpoint.FormatOf(dir)
	return err
}

// inside is a component of a model.
func (p *pipeline) inside(ref recipe.ModelRef, name string) recipe.ModelRef {
	ref.Path, ref.Revision = filepath.Join(p.dirs[placeOf(ref)], name), ""
	return ref
}

// of is the recipe of one component.
func (p *pipeline) of(name string) *recipe.Recipe {
	r := *p.r
	r.Models = slices.Clone(r.Models)
	for i := range r.Models {
		r.Models[i].Model = p.inside(r.Models[i].Model, name)
	}
	if r.Base != nil {
		base := p.inside(*r.Base, name)
		r.Base = &base
	}
	r.Text = r.YAML()
	return &r
}

// key identifies what a component is made of and how.
func (p *pipeline) key(name string, r *recipe.Recipe) string {
	h := sha256.New()
	fmt.Fprintf(h, "component 2|%s|%s|%s|%v|%v|%d|%d|%t|%t|", name, r.Fingerprint(), p.o.Backend.Name(), p.o.Plan.Arith, p.o.Plan.RNG, p.o.Plan.Seed, p.o.ShardBytes, p.o.AllowNonFinite, p.o.Provenance)
	for _, ref := range p.r.References() {
		dir := filepath.Join(p.dirs[placeOf(ref)], name)
		var files []string
		if entries, err := os.ReadDir(dir); err == nil {
			for _, e := range entries {
				files = append(files, filepath.Join(dir, e.Name()))
			}
		}
		identifyFiles(h, files)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// run merges the components one after the other. The output appears when all are there.
func (p *pipeline) run(ctx context.Context, out string) (*Summary, error) {
	start := time.Now()
	for _, dir := range p.dirs {
		if tensors.Holds(out, dir) {
			return nil, &tensors.FormatError{File: out, Msg: "the output is the directory of an input, or holds it", Hint: "choose another output directory"}
		}
	}
	c, err := tensors.CreateCollection(out, p.o.Force, p.o.Resume)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	total := &Summary{Output: out, Method: p.r.Method, Backend: p.o.Backend.Description(), Components: p.components}
	for _, name := range p.components {
		r := p.of(name)
		key := p.key(name, r)
		if done, err := p.left(c, name, key); done || err != nil {
			if err != nil {
				return nil, err
			}
			continue
		}
		o := p.o
		o.component, o.ModelCard, o.Force = stemOf(filepath.Join(p.donor, name)), false, false
		s, err := RunRecipe(ctx, r, c.Dir(name), o)
		if err != nil {
			return nil, fmt.Errorf("component %s: %w", name, err)
		}
		if err := c.Finish(name, key); err != nil {
			return nil, err
		}
		total.add(s)
	}
	if err := p.copyRest(c); err != nil {
		return nil, err
	}
	if err := p.record(c); err != nil {
		return nil, err
	}
	total.Seconds = time.Since(start).Seconds()
	return total, c.Commit()
}

// left sees whether an interrupted run has made the component. One that it has begun is left to be resumed.
func (p *pipeline) left(c *tensors.Collection, name, key string) (done bool, err error) {
	if _, err := os.Stat(c.Dir(name)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return c.Finished(name, key)
}

// stemOf is how a component's weight files begin: diffusers' own have another name than those of transformers.
func stemOf(dir string) string {
	const diffusers = "diffusion_pytorch_model"
	if found, err := os.ReadDir(dir); err == nil {
		for _, e := range found {
			if strings.HasPrefix(e.Name(), diffusers+".") {
				return diffusers
			}
		}
	}
	return ""
}

// add sums what components are.
func (s *Summary) add(c *Summary) {
	s.Tensors += c.Tensors
	s.Resumed += c.Resumed
	s.Elements += c.Elements
	s.Read += c.Read
	s.Written += c.Written
	s.Shards += c.Shards
	s.Kernels += c.Kernels
	s.PeakAnon, s.PeakRSS = max(s.PeakAnon, c.PeakAnon), max(s.PeakRSS, c.PeakRSS)
}

// maxBeside bounds the files that are copied as they are; weights of other formats are larger.
const maxBeside = 256 << 20

// copyRest copies what is no component with weights: the index, schedulers, tokenizers.
func (p *pipeline) copyRest(c *tensors.Collection) error {
	if p.o.ModelCard {
		if err := c.WriteFile("mergekit_config.yml", p.r.Text); err != nil {
			return err
		}
	}
	return filepath.WalkDir(p.donor, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(p.donor, path)
		if err != nil {
			return err
		}
		name := e.Name()
		switch {
		case rel == ".":
			return nil
		case strings.HasPrefix(name, "."), rel == "README.md":
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir() && slices.Contains(p.components, rel):
			return fs.SkipDir
		case e.IsDir():
			return nil
		}
		st, err := os.Stat(path) // caches have links to the files
		if err != nil || !st.Mode().IsRegular() || st.Size() > maxBeside || weights(name) {
			return err
		}
		return c.CopyFile(rel, path)
	})
}

// weights reports whether a file holds weights, of the pipeline in one file or in another format.
func weights(name string) bool {
	return slices.Contains([]string{".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".msgpack", ".onnx", ".h5"}, strings.ToLower(filepath.Ext(name)))
}
