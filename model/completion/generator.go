package completion

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// Generator continues texts with a model.
type Generator struct {
	Model     *model.Model
	Tokenizer *tokenizer.Tokenizer
	Template  *chat.Template // nil when the checkpoint has none
	EOS       []int          // tokens that end a text
	Date      time.Time      // that templates may write
}

// Open opens the tokenizer and the chat template of a checkpoint, before its weights, which Use adds. dirs are looked into in order:
// an adapter that brings its own comes before its base. template names another chat template, "" for the checkpoint's own.
func Open(template string, dirs ...string) (*Generator, error) {
	g := &Generator{}
	dir, err := holder("tokenizer.json", dirs)
	if err != nil {
		return nil, err
	}
	if g.Tokenizer, err = tokenizer.Open(dir); err != nil {
		return nil, err
	}
	if _, id, ok := g.Tokenizer.EOS(); ok {
		g.ends(id)
	}
	for _, dir := range dirs {
		more, err := generationEOS(filepath.Join(dir, "generation_config.json"))
		if err != nil {
			return nil, err
		}
		g.ends(more...)
	}
	var lookup *chat.LookupError
	for _, dir := range dirs {
		g.Template, err = chat.Find(dir, template)
		if err == nil {
			return g, nil
		}
		if template != "" || !errors.As(err, &lookup) {
			return nil, err
		}
	}
	return g, nil
}

// Use sets the model that continues texts.
func (g *Generator) Use(m *model.Model) {
	g.Model = m
	g.ends(m.D.EOS...)
}

// ends adds tokens that end a text.
func (g *Generator) ends(ids ...int) {
	for _, id := range ids {
		if !slices.Contains(g.EOS, id) {
			g.EOS = append(g.EOS, id)
		}
	}
}

// holder returns the first directory that has a file.
func holder(name string, dirs []string) (string, error) {
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return dir, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", &model.InputError{File: strings.Join(dirs, ", "), Msg: "has no " + name + "; copy the tokenizer of the model into its directory"}
}

// generationEOS returns the ending tokens of a generation_config.json, which may have more than config.json: the end of a turn.
func generationEOS(path string) ([]int, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c struct {
		EOS json.RawMessage `json:"eos_token_id"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, &model.ConfigError{File: path, Msg: fmt.Sprintf("cannot be read: %v", err)}
	}
	var one int
	var list []int
	switch {
	case len(c.EOS) == 0 || string(c.EOS) == "null":
	case json.Unmarshal(c.EOS, &one) == nil:
		list = []int{one}
	case json.Unmarshal(c.EOS, &list) != nil:
		return nil, &model.ConfigError{File: path, Msg: fmt.Sprintf(`"eos_token_id" must be a token id or a list of them, not %s`, c.EOS)}
	}
	return list, nil
}

// Options say how prompts are continued.
type Options struct {
	model.Sampling
	MaxTokens int
	Stop      []string // texts that end a completion; they are left out of it
	Chat      bool     // a prompt that is a text becomes the user's message
	System    string   // the system's message before it, "" for none
	Extra     map[string]any
	Batch     int // prompts that are continued together; 0: 8
	// Text is told new text of a prompt as soon as it is certain. It may be nil.
	Text      func(prompt int, text string)
	Compiling func(what string)
}

// Completion is a continued prompt.
type Completion struct {
	Text   string       `json:"text"`
	Prompt int          `json:"prompt_tokens"`
	Tokens int          `json:"tokens"`
	Reason model.Reason `json:"reason"`
}

// Encode returns the tokens of a prompt, as the model was trained to see them.
func (g *Generator) Encode(p Prompt, o Options) ([]int32, error) {
	var ids []int
	var err error
	switch {
	case p.Messages != nil || o.Chat:
		text, renderErr := g.Render(p, o)
		if renderErr != nil {
			return nil, renderErr
		}
		ids, err = g.Tokenizer.EncodeErr(text, false)
	default:
		ids, err = g.Tokenizer.EncodeErr(p.Text, true)
	}
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		if _, id, ok := g.Tokenizer.BOS(); ok { // an empty prompt: the beginning of a text
			ids = []int{id}
		}
	}
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out, nil
}

// Render returns the text of a conversation up to where the model's answer begins.
func (g *Generator) Render(p Prompt, o Options) (string, error) {
	if g.Template == nil {
		return "", &model.InputError{Msg: "the checkpoint has no chat template; name one with --template, or give the prompt as it is, without --chat"}
	}
	messages := p.Messages
	if messages == nil {
		messages = []any{map[string]any{"role": "user", "content": p.Text}}
	}
	if o.System != "" {
		messages = append([]any{map[string]any{"role": "system", "content": o.System}}, messages...)
	}
	in := chat.Input{Messages: messages, Tools: p.Tools, AddGenerationPrompt: true, Extra: o.Extra, Date: g.Date}
	in.BOS, _, _ = g.Tokenizer.BOS()
	in.EOS, _, _ = g.Tokenizer.EOS()
	in.PAD, _, _ = g.Tokenizer.PAD()
	in.UNK, _, _ = g.Tokenizer.UNK()
	out, err := g.Template.Render(in)
	return out.Text, err
}

// writing is a completion in the making.
type writing struct {
	stream *tokenizer.Stream
	stop   stopper
	text   strings.Builder
	ended  bool
}

// Complete continues prompts. Every completion is a function of its prompt, the options and the prompt's number, whatever batch it
// is in.
func (g *Generator) Complete(ctx context.Context, prompts []Prompt, o Options) ([]Completion, model.GenerateStats, error) {
	var total model.GenerateStats
	out := make([]Completion, 0, len(prompts))
	batch := o.Batch
	if batch <= 0 {
		batch = 8
	}
	for from := 0; from < len(prompts); from += batch {
		some := prompts[from:min(from+batch, len(prompts))]
		ids := make([][]int32, len(some))
		for i, p := range some {
			var err error
			if ids[i], err = g.Encode(p, o); err != nil {
				return out, total, err
			}
		}
		done, stats, err := g.together(ctx, ids, from, o)
		total.PromptTokens += stats.PromptTokens
		total.NewTokens += stats.NewTokens
		total.SteadyTokens += stats.SteadyTokens
		total.SteadyTime += stats.SteadyTime
		if from == 0 {
			total.First = stats.First
		}
		if err != nil {
			return out, total, err
		}
		out = append(out, done...)
	}
	return out, total, nil
}

// together continues a batch, whose first prompt is number from.
func (g *Generator) together(ctx context.Context, ids [][]int32, from int, o Options) ([]Completion, model.GenerateStats, error) {
	texts := make([]*writing, len(ids))
	for i := range texts {
		texts[i] = &writing{stream: g.Tokenizer.Stream(), stop: stopper{stops: o.Stop}}
	}
	write := func(i int, text string) {
		if text == "" {
			return
		}
		texts[i].text.WriteString(text)
		if o.Text != nil {
			o.Text(from+i, text)
		}
	}
	mo := model.GenerateOptions{Sampling: o.Sampling, MaxTokens: o.MaxTokens, EOS: g.EOS, First: from, Compiling: o.Compiling}
	mo.Token = func(i int, id int32) bool {
		text, stopped := texts[i].stop.push(texts[i].stream.Next(int(id)))
		write(i, text)
		texts[i].ended = stopped
		return stopped
	}
	got, stats, err := g.Model.Generate(ctx, ids, mo)
	if err != nil {
		return nil, stats, err
	}
	out := make([]Completion, len(ids))
	for i, w := range texts {
		if !w.ended {
			text, stopped := w.stop.push(w.stream.Flush())
			write(i, text)
			if !stopped {
				write(i, w.stop.rest())
			}
		}
		out[i] = Completion{Text: w.text.String(), Prompt: len(ids[i]), Tokens: len(got[i].IDs), Reason: got[i].Reason}
	}
	return out, stats, nil
}
