package merge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/stages"
	"github.com/mergekit/mergekit/tensors"
)

// StagesSuffix ends the name of the directory beside an output in which its stages are, unless another place is given.
const StagesSuffix = ".stages"

// ready refuses what options do not allow.
func (st *staging) ready() error {
	o := st.o.Stages
	switch {
	case o.Dir != "" && st.out == "" && st.g.Output.Name == "":
		r := st.g.Output.Recipe
		return &recipe.Error{File: r.File, Pos: r.Pos, Msg: "this document has no name, so it is the output, and no place is given for it; add name:, or give an output directory (--out-path)"}
	case o.Dir != "" && st.out != "" && tensors.SameDir(o.Dir, st.out):
		return &InputError{fmt.Errorf("%s: is to hold the stages and the output; give one of them another directory", o.Dir)}
	}
	if st.out == "" {
		return nil
	}
	if o.Dir != "" && st.g.Output.Name != "" {
		st.warn("every document has a name, so each is found in %s; %s holds the last one, %s", o.Dir, st.out, st.g.Output.Name)
	}
	if st.o.Part.Of > 0 {
		return nil
	}
	return tensors.CheckOutput(st.out, st.o.Force, st.o.Resume || st.o.Join > 0)
}

// checkOutput refuses an output in the place of an input.
func (st *staging) checkOutput(s *stages.Stage, p *plan.Plan) error {
	if s.Fused {
		for _, w := range p.Warnings {
			st.warn("%s: %s", s.Label(), w)
		}
	}
	if st.out == "" {
		return nil
	}
	return notRead(p, st.out)
}

func (st *staging) warn(format string, args ...any) {
	if st.o.Warn != nil {
		st.o.Warn(fmt.Sprintf(format, args...))
	}
}

// cache is the directory of the stages.
func (st *staging) cache() string {
	if st.o.Stages.Cache != "" {
		return st.o.Stages.Cache
	}
	return strings.TrimRight(st.out, `/\`) + StagesSuffix
}

// temporary says whether the stages go once the output is there.
func (st *staging) temporary() bool {
	return st.o.Stages.Dir == "" && st.o.Stages.Cache == "" && !st.o.Stages.Keep
}

// stamp identifies the bytes of a stage.
func (st *staging) stamp(s *stages.Stage) string {
	sum := sha256.Sum256([]byte(st.o.Backend.Name() + "|" + st.keys[s]))
	return hex.EncodeToString(sum[:])
}

// stamped is how much of a stamp a directory's name has.
const stamped = 16

// place is the directory of a stage.
func (st *staging) place(s *stages.Stage) (string, error) {
	if st.keys[s] == "" { // it could not be planned before
		p, err := plan.Build(s.Recipe, st.o.Plan)
		if err != nil {
			return "", &InputError{err}
		}
		st.key(s, p)
		p.Close()
	}
	if dir := st.o.Stages.Dir; dir != "" {
		return filepath.Join(dir, s.Name), nil
	}
	return filepath.Join(st.cache(), s.Name+"-"+st.stamp(s)[:stamped]), nil
}

// make writes a stage to its directory, unless it is there. The summary is nil then.
func (st *staging) make(ctx context.Context, s *stages.Stage, report *StageReport) (*Summary, error) {
	dir, err := st.place(s)
	if err != nil {
		return nil, err
	}
	o := st.o
	o.Resume, o.Force = true, false
	if o.Stages.Dir == "" {
		o.CopyTokenizer, o.Provenance, o.ShardBytes = true, false, 0 // whatever the output's options are
	} else {
		o.extra = map[string][]byte{stageMark: []byte(st.stamp(s) + "\n")}
	}
	report.Dir = dir
	there, err := st.there(s, dir)
	if err != nil {
		return nil, err
	}
	if there {
		report.State = StageReused
		st.written(s, dir)
		return nil, nil
	}
	if o.Part.Of > 0 || o.Join > 0 {
		return nil, &InputError{fmt.Errorf("%s is a stage that must be on the disk (%s), and parts do not make stages: merge the file once without --part, with --stage-cache DIR, and give all parts that cache", s.Name, s.Why)}
	}
	if _, err := os.Lstat(dir); err == nil { // what is there is another recipe's
		if err := st.spared(dir); err != nil {
			return nil, err
		}
		o.Resume, o.Force = false, true
	}
	if o.Stage != nil {
		o.Stage(StageReport{Name: s.Name, Method: s.Recipe.Method, State: StageMaking, Dir: dir})
	}
	o.Report, o.Planned = "", nil
	sum, err := RunRecipe(ctx, s.Recipe, dir, o)
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", s.Name, err)
	}
	st.written(s, dir)
	report.State, report.Tensors, report.Seconds = StageMade, sum.Tensors, sum.Seconds
	return sum, nil
}

// spared refuses a directory for an output or a stage that any of the recipes planned so far reads, whether or not it is on the way to it: a
// recipe looks at its own inputs only.
func (st *staging) spared(dir string) error {
	for _, s := range st.g.Stages {
		for _, m := range st.reads[s] {
			if err := apart(m.ref.String(), m.dir, m.adapterDir, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// written notes that a stage is in a directory.
func (st *staging) written(s *stages.Stage, dir string) {
	st.dirs[s] = dir
	st.forget()
}

// there says whether a stage is in its directory: one that a key names was whole, and must still open. In a directory that a name names, the
// mark tells what it is; without one it comes from another program and is believed, as that program does.
func (st *staging) there(s *stages.Stage, dir string) (bool, error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return false, &tensors.FormatError{File: dir, Msg: "is a file, and the stage " + s.Name + " is to be a directory of that name", Hint: "remove it, or choose another directory for stages"}
	}
	if st.o.Stages.Dir == "" {
		c, err := tensors.Open(dir)
		var bad *tensors.FormatError
		if errors.As(err, &bad) { // somebody has made room, or a disk has failed
			st.warn("the stage %s is kept in %s, but cannot be read, so it is made anew: %s", s.Name, dir, bad.Msg)
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, c.Close()
	}
	mark, err := os.ReadFile(filepath.Join(dir, stageMark))
	marked := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	_, noConfig := os.Stat(filepath.Join(dir, "config.json"))
	c, noWeights := tensors.Open(dir)
	if noWeights == nil {
		_ = c.Close()
	}
	if !marked && (noConfig != nil || noWeights != nil) {
		if list, err := os.ReadDir(dir); err == nil && len(list) > 0 && !st.o.Force {
			return false, &tensors.FormatError{File: dir, Msg: "exists and is no stage", Hint: "remove it, choose another directory for stages, or use --force to replace it"}
		}
		return false, nil
	}
	switch {
	case !st.o.Stages.Lazy:
		return false, nil
	case !marked:
		st.warn("%s was made by another program and is taken as the stage %s; remove it, or use --no-lazy, to make it anew", dir, s.Name)
		return true, nil
	case string(bytes.TrimSpace(mark)) != st.stamp(s):
		st.warn("%s is of another recipe, or of other inputs, than %s is now, so it is made anew", dir, s.Name)
		return false, nil
	}
	return noWeights == nil, nil
}

// clean removes stages that are of no use once the output is there: also those of earlier versions of the recipes.
func (st *staging) clean() {
	if !st.temporary() {
		return
	}
	dir := st.cache()
	list, err := os.ReadDir(dir)
	if err != nil {
		return // none was written
	}
	for _, s := range st.g.Stages {
		ours := regexp.MustCompile(`^\.?` + regexp.QuoteMeta(s.Name) + `-[0-9a-f]{` + fmt.Sprint(stamped) + `}(\.[a-z.]+)?$`)
		for _, e := range list {
			if s.Name != "" && ours.MatchString(e.Name()) {
				_ = os.RemoveAll(filepath.Join(dir, e.Name()))
			}
		}
	}
	_ = os.Remove(dir) // stays if something else is in it
}

// others is the text of all documents but the output's.
func (st *staging) others(list []*recipe.Recipe) []byte {
	var b bytes.Buffer
	for _, r := range list {
		if r == st.g.Output.Recipe {
			continue
		}
		text := r.Text
		if b.Len() > 0 && !bytes.HasPrefix(text, []byte("---")) {
			b.WriteString("---\n")
		}
		b.Write(text)
		if !bytes.HasSuffix(text, []byte("\n")) {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}
