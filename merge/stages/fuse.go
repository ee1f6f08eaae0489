package stages

import (
	"fmt"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/recipe"
)

// mostReads is how often a tensor may be computed anew before it is better to write it down once. A write and a read of the disk take as
// long as several passes over the inputs of an elementwise method.
const mostReads = 4

// mostSteps is how many stages are computed within each other: every step adds the buffers of a merge to each worker.
const mostSteps = 4

// Fuse decides which stages are computed where they are read. With keep, none is. rng is the generator of the merges.
func (g *Graph) Fuse(rng method.RNG, keep bool) {
	times := map[*Stage]int{g.Output: 1} // how often a stage's tensors are computed
	steps := map[*Stage]int{}            // from a stage to what is written
	for i := len(g.Stages) - 1; i >= 0; i-- {
		s := g.Stages[i]
		if s == g.Output {
			s.Fused, s.Why = false, "it is the output"
			continue
		}
		reads, deep := 0, 0
		for _, by := range s.UsedBy {
			deep = max(deep, steps[by]+1)
			passes := passesOf(by.Recipe)
			if by.Fused { // its statistics are gathered once, its last pass runs as often as it is read
				passes += times[by] - 1
			}
			reads += passes
		}
		times[s] = 1
		s.Why = ""
		switch why := produces(s.Recipe, rng); {
		case keep:
			s.Why = "all stages are kept"
		case why != "":
			s.Why = why
		case s.adapted:
			s.Why = "an adapter is put on it"
		default:
			for _, by := range s.UsedBy {
				if why := consumes(by); why != "" {
					s.Why = why
				}
			}
		}
		switch {
		case s.Why != "":
		case reads > mostReads:
			s.Why = fmt.Sprintf("its tensors are read %d times", reads)
		case deep > mostSteps:
			s.Why = fmt.Sprintf("%d stages in a row are computed where they are read already", mostSteps)
		}
		if s.Fused = s.Why == "" && len(s.UsedBy) > 0; s.Fused {
			times[s], steps[s] = reads, deep
		}
	}
}

// passesOf is how often a recipe's method reads an input.
func passesOf(r *recipe.Recipe) int {
	if m, ok := method.Get(r.Method); ok {
		return max(1, m.Reads)
	}
	return 1
}

// produces says why a recipe's tensors cannot be computed in parts, "" if they can.
func produces(r *recipe.Recipe, rng method.RNG) string {
	m, ok := method.Get(r.Method)
	switch {
	case !ok:
		return "its method is not known"
	case m.Whole:
		return m.Name + " sees models as wholes"
	case m.Matrix || m.Memory != nil:
		return m.Name + " holds whole tensors"
	case m.Localizes:
		return m.Name + " looks at all tensors first"
	case m.Draws != nil && rng == method.Peer:
		return "the random sequence runs from tensor to tensor"
	case r.Align != nil || m.Aligns:
		return "its models are aligned first"
	case r.Repair.Acts():
		return "it is repaired as a whole"
	case r.Search != nil:
		return "its numbers are searched"
	case r.Evaluate != nil:
		return "it is measured"
	case ownTokenizer(r):
		return "it has a tokenizer of its own"
	}
	return ""
}

// consumes says why a stage needs its inputs on the disk, "" if it does not.
func consumes(s *Stage) string {
	r := s.Recipe
	what := ""
	m, ok := method.Get(r.Method)
	switch {
	case !ok:
		what = "has a method that is not known"
	case m.Whole:
		what = "sees models as wholes"
	case m.Localizes:
		what = "looks at all tensors first"
	case r.Align != nil || m.Aligns:
		what = "aligns it"
	case r.Repair.Acts():
		what = "measures it for a repair"
	case r.Search != nil:
		what = "is merged many times"
	case r.Evaluate != nil:
		what = "measures it"
	case r.Tokenizer != nil || r.TokenizerSource != "":
		what = "makes a tokenizer of it"
	}
	if what == "" {
		return ""
	}
	return s.Label() + " " + what
}

// Foreseen says whether it is known which tensors the stage makes before it is made.
func (s *Stage) Foreseen() bool {
	m, ok := method.Get(s.Recipe.Method)
	return ok && (!m.Whole || m.Blends)
}

// OwnTokenizer says whether the stage makes a tokenizer or a chat template.
func (s *Stage) OwnTokenizer() bool { return ownTokenizer(s.Recipe) }

func ownTokenizer(r *recipe.Recipe) bool {
	return r.Tokenizer != nil || r.TokenizerSource != "" || r.ChatTemplate != ""
}
