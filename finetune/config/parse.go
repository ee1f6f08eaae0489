package config

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// Error is a fault of a configuration: what is wrong, where, and what to do.
type Error = strictyaml.Error

// kind is what strictyaml has to know of configurations.
var kind = strictyaml.Kind{Noun: "configuration", Empty: "give at least model.base and data.train"}

// Load reads a configuration file. sets are values of the form "a.b=c" that win over the file's; an item of a list is named by its
// index, as in "data.train[0].weight=2", and the index behind the last one adds an item. All faults come back joined, each an *Error.
func Load(path string, sets []string) (*Config, error) {
	data, err := Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data, sets)
}

// Read gives the bytes of a configuration file, not more of them than any configuration has. A file that cannot be read is an *Error
// that wraps the cause.
func Read(path string) ([]byte, error) { return strictyaml.ReadFile(path, kind) }

// Parse reads a configuration from data. name is the file's, for messages and for the folder to which relative paths may refer.
func Parse(name string, data []byte, sets []string) (*Config, error) {
	if name == "" {
		name = "configuration"
	}
	root, fault := strictyaml.ReadDocument(name, data, kind)
	if fault != nil {
		return nil, errors.Join(fault)
	}
	if root.Kind == yaml.MappingNode {
		if faults := applySets(root, sets); len(faults) > 0 {
			return nil, strictyaml.Join(faults)
		}
	}
	d := &decoder{Decoder: &strictyaml.Decoder{File: name, Noun: kind.Noun}, where: map[string]strictyaml.Node{}}
	c := d.config(root)
	if len(d.Errs) == 0 {
		d.validate(c)
	}
	if len(d.Errs) > 0 {
		return nil, blame(d.Errs, sets)
	}
	d.resolvePaths(c, filepath.Dir(name))
	return c, nil
}

// blame joins the errors, the file's first, and tells those that come from a set at the set.
func blame(errs []*Error, sets []string) error {
	slices.SortStableFunc(errs, func(a, b *Error) int {
		// The lines of sets count down from -1, so that the first comes first behind the file's.
		pa, pb := a.Pos, b.Pos
		if pa.Line < 0 {
			pa.Line = strictyaml.MaxBytes - pa.Line
		}
		if pb.Line < 0 {
			pb.Line = strictyaml.MaxBytes - pb.Line
		}
		return pa.Compare(pb)
	})
	list := make([]error, len(errs))
	for i, e := range errs {
		if e.Pos.Line < 0 {
			e.File, e.Pos = "--set "+strictyaml.Clip(sets[-e.Pos.Line-1]), strictyaml.Pos{}
		}
		list[i] = e
	}
	return errors.Join(list...)
}

// config decodes the document over the defaults, which depend on what it says of method and tune.
func (d *decoder) config(n *yaml.Node) *Config {
	root := d.Open(n, strictyaml.Node{})
	d.root = root
	if root.Kind != yaml.MappingNode {
		d.Mapping(root, "a configuration")
		return nil
	}
	method, tune := d.choice(n, "method"), d.choice(n, "tune")
	c := Defaults(method, tune)
	d.section(root, "", c)
	if len(d.Errs) > 0 {
		return nil
	}
	d.settle(c)
	return c
}

// choice reads a word at the root ahead of everything else. Faults are told when its turn comes.
func (d *decoder) choice(n *yaml.Node, key string) string {
	ahead := &strictyaml.Decoder{}
	fields, _ := ahead.Mapping(ahead.Open(n, strictyaml.Node{}), "")
	for _, f := range fields {
		if f.Key == key && f.Value.Kind == yaml.ScalarNode {
			return f.Value.Node.Value
		}
	}
	return ""
}

// settle derives what depends on other keys.
func (d *decoder) settle(c *Config) {
	given := func(key string) bool { _, ok := d.where[key]; return ok }
	if given("lora.r") && !given("lora.alpha") {
		c.LoRA.Alpha = float64(2 * c.LoRA.R)
	}
	switch {
	case c.Tune == "dora" && given("lora.use_dora") && !c.LoRA.UseDoRA:
		d.fault("lora.use_dora", "tune: dora and use_dora: false contradict each other; remove one")
	case c.Tune == "dora":
		c.LoRA.UseDoRA = true
	case c.Tune == "lora" && c.LoRA.UseDoRA:
		c.Tune = "dora"
	}
	if given("sparse.count") && !given("sparse.share") {
		c.Sparse.Share = 0
	}
	if given("schedule.warmup_steps") {
		c.Schedule.WarmupRatio = 0 // else a warm-up of 0 steps would be none given
	}
	stem := strings.TrimSuffix(filepath.Base(d.File), filepath.Ext(d.File))
	switch {
	case c.Run.Name == "" && c.Run.OutputDir != "":
		c.Run.Name = filepath.Base(c.Run.OutputDir)
	case c.Run.Name == "":
		c.Run.Name = stem
	}
	if c.Run.OutputDir == "" {
		c.Run.OutputDir = filepath.Join("out", c.Run.Name)
	}
}
