package merge

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/tensors"
)

// KindOf is how --backend calls the kind of a backend. Those of one kind give the same bytes.
func KindOf(b compute.Backend) string {
	if x, ok := b.(interface{ PluginName() string }); ok {
		name := filepath.Base(x.PluginName())
		for _, kind := range []string{"cuda", "cpu"} {
			if strings.Contains(name, kind) {
				return b.Name() + ":" + kind
			}
		}
		return b.Name() + ":" + name
	}
	switch b.Name() {
	case "block":
		return "go"
	case "Go Backend":
		return "gomlx"
	}
	return b.Name()
}

// checkPart refuses to split what cannot be split.
func checkPart(p *plan.Plan, o Options) error {
	if o.Part.Of == 0 {
		return nil
	}
	refuse := func(what, why, hint string) error {
		return &InputError{fmt.Errorf("--part: %s cannot be merged in parts: %s; %s", what, why, hint)}
	}
	switch r := p.Recipe; {
	case r.Search != nil:
		return refuse("a recipe with search:", "its trials are whole models", "search first, and merge search's mergekit_config.yml in parts")
	case repairs(r):
		return refuse("a recipe with repair:", "statistics of the whole model are repaired", "merge it on one machine")
	case p.Method.Whole:
		return refuse("merge_method: "+p.Method.Name, "it looks at models as wholes", "merge it on one machine")
	case o.Report != "":
		return refuse("a merge with --report", "the page is about all tensors", "give --report to 'mergekit join'")
	}
	return nil
}

// partial adds to the options of a writer what concerns parts.
func (j *job) partial(o tensors.WriteOptions) tensors.WriteOptions {
	switch {
	case j.o.Part.Of > 0:
		o.Part = j.o.Part
		o.Part.Key, o.Part.Engine = identity(j.p, j.maps, j.o, ""), KindOf(j.o.Backend)
	case j.o.Join > 0:
		if j.o.Started != nil {
			j.o.Started(j.p.BytesWritten())
		}
		o.Join = tensors.Join{Parts: j.o.Join, Key: identity(j.p, j.maps, j.o, ""), Verified: j.o.Written}
	}
	return o
}

// partDone ends a part: what stands beside the tensors comes when the parts are joined.
func (j *job) partDone(s *Summary, w *tensors.Writer) (*Summary, error) {
	s.Part, s.Shards = j.o.Part.String(), len(w.Shards())
	s.Written = 0
	for _, shard := range w.Shards() {
		s.Written += shard.Bytes
	}
	if s.Shards == 0 && j.o.Warn != nil {
		j.o.Warn(fmt.Sprintf("part %s has nothing to do: the output has fewer shards than parts; choose a smaller --shard-size for all parts", s.Part))
	}
	return s, errors.Join(w.Commit(), w.Close())
}

// joinedBefore ends a join that was killed when its output had appeared.
func (j *job) joinedBefore() (*Summary, error) {
	s := &Summary{Method: j.p.Method.Name, Backend: j.o.Backend.Description(), Tensors: len(j.p.Outputs()), Elements: j.p.Elements()}
	s.Notes = append(s.Notes, "it had been joined before, and what was left of the parts is removed")
	return s, j.joined()
}

// joined removes the parts of an output that has appeared.
func (j *job) joined() error {
	if j.o.Join == 0 {
		return nil
	}
	return tensors.RemoveParts(j.out, j.o.Join)
}
