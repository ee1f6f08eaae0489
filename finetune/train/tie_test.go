package train_test

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/finetune/train"
)

// TestTied trains embeddings and heads that may be one matrix, and wants one model from four: the one that trained, the adapter
// beside its base, the fused checkpoint, and the one with which a further run begins.
func TestTied(t *testing.T) {
	b := goBackend(t)
	const tied = "../../testdata/golden/forward/llama-tied-bias"
	const embed, head = "base_model.model.model.embed_tokens", "base_model.model.lm_head"
	for name, c := range map[string]struct {
		base string
		tie  adapter.Tie
		sets []string
		keys []string // that the adapter must hold
	}{
		"embedding with magnitudes": {tiny, adapter.Refuse, []string{"lora.target_modules=[embed_tokens, q_proj]", "lora.use_dora=true"},
			[]string{embed + ".lora_embedding_A", embed + ".lora_magnitude_vector"}},
		"untied head":            {tied, adapter.Untie, []string{"lora.target_modules=[lm_head, q_proj]", "lora.tie=untie"}, []string{head + ".lora_A.weight"}},
		"untied pissa head":      {tied, adapter.Untie, []string{"lora.target_modules=[lm_head, q_proj]", "lora.init=pissa", "lora.tie=untie"}, []string{head + ".lora_A.weight"}},
		"untied embedding":       {tied, adapter.Untie, []string{"lora.target_modules=[embed_tokens, q_proj]", "lora.tie=untie"}, []string{embed + ".lora_embedding_A"}},
		"untied whole head":      {tied, adapter.Untie, []string{"lora.target_modules=[q_proj]", "lora.modules_to_save=[lm_head]", "lora.tie=untie"}, []string{head + ".weight"}},
		"untied whole embedding": {tied, adapter.Untie, []string{"lora.target_modules=[q_proj]", "lora.modules_to_save=[embed_tokens]", "lora.tie=untie"}, []string{embed + ".weight"}},
		"kept whole embedding":   {tied, adapter.Refuse, []string{"lora.target_modules=[q_proj]", "lora.modules_to_save=[embed_tokens]", "lora.tie=keep"}, []string{embed + ".weight", head + ".weight"}},
		"kept whole head":        {tied, adapter.Refuse, []string{"lora.target_modules=[q_proj]", "lora.modules_to_save=[lm_head]", "lora.tie=keep"}, []string{embed + ".weight", head + ".weight"}},
		"kept embedding":         {tied, adapter.Refuse, []string{"lora.target_modules=[embed_tokens, q_proj]", "lora.tie=keep"}, []string{embed + ".lora_embedding_A", head + ".lora_B.weight"}},
		"kept head":              {tied, adapter.Refuse, []string{"lora.target_modules=[lm_head, q_proj]", "lora.tie=keep"}, []string{embed + ".lora_embedding_A", head + ".lora_B.weight"}},
		"kept in GPT-2": {"../../testdata/golden/train/gpt2-lora/base", adapter.Refuse, []string{"lora.target_modules=[wte, c_attn]", "lora.tie=keep"},
			[]string{"base_model.model.transformer.wte.lora_embedding_A", head + ".lora_B.weight"}},
		"positions beside a tied embedding": {"../../testdata/golden/train/gpt2-lora/base", adapter.Refuse, []string{"lora.target_modules=[c_attn]", "lora.modules_to_save=[wpe]"},
			[]string{"base_model.model.transformer.wpe.weight"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			common := []string{"lora.r=4", "lora.alpha=8", "train.micro_batch=16", "train.grad_accum=1", "optim.lr=1e-2"}
			s := mustRun(t, b, parse(t, dir, c.base, append(append(common, "train.max_steps=5"), c.sets...)...))
			if *s.LastLoss >= *s.FirstLoss {
				t.Errorf("the loss went from %v to %v", *s.FirstLoss, *s.LastLoss)
			}
			a, err := adapter.Open(s.Result)
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range c.keys {
				if _, ok := a.Tensors[key]; !ok {
					t.Errorf("the adapter holds no %s but %v", key, a.Keys())
				}
			}
			beside := lossOf(t, b, c.base, a)
			fused := filepath.Join(dir, "fused")
			if _, err := adapter.Fuse(context.Background(), c.base, s.Result, fused, adapter.FuseOptions{Tie: c.tie}); err != nil {
				t.Fatal(err)
			}
			if got := lossOf(t, b, fused, nil); math.Abs(got-beside) > 1e-5*beside {
				t.Errorf("the loss is %v beside the base, %v fused", beside, got)
			}
			further := []string{"train.max_steps=2", "model.adapter_in=" + s.Result}
			if c.tie == adapter.Untie {
				further = append(further, "lora.tie=untie")
			}
			next := mustRun(t, b, parse(t, t.TempDir(), c.base, append(common, further...)...))
			if got := *next.FirstLoss; math.Abs(got-beside) > 1e-5*beside {
				t.Errorf("a further run begins at %v, the adapter is at %v", got, beside)
			}
			// The steps of one run are those of two, up to the moments of the optimizer: the first step after the last is the same.
			six := mustRun(t, b, parse(t, t.TempDir(), c.base, append(append(common, "train.max_steps=6"), c.sets...)...))
			if got := *six.LastLoss; math.Abs(got-beside) > 1e-5*beside {
				t.Errorf("while training the loss was %v, the adapter gives %v", got, beside)
			}
		})
	}
}

// TestTiedRefuses wants a clear answer where a tied matrix would train without a policy or against it.
func TestTiedRefuses(t *testing.T) {
	b := goBackend(t)
	const tied = "../../testdata/golden/forward/llama-tied-bias"
	kept := mustRun(t, b, parse(t, t.TempDir(), tied, "lora.target_modules=[q_proj]", "lora.modules_to_save=[lm_head]", "lora.tie=keep", "train.max_steps=1"))
	plain := mustRun(t, b, parse(t, t.TempDir(), tied, "lora.target_modules=[q_proj]", "train.max_steps=1"))
	head := mustRun(t, b, parse(t, t.TempDir(), tied, "lora.target_modules=[lm_head]", "lora.tie=untie", "train.max_steps=1"))
	for name, c := range map[string]struct {
		sets []string
		want string
	}{
		"head":             {[]string{"lora.target_modules=[lm_head]"}, "lm_head would train"},
		"embedding":        {[]string{"lora.target_modules=[embed_tokens]"}, "embed_tokens would train"},
		"whole head":       {[]string{"lora.target_modules=[q_proj]", "lora.modules_to_save=[lm_head]"}, "lm_head would train"},
		"whole embedding":  {[]string{"lora.target_modules=[q_proj]", "lora.modules_to_save=[embed_tokens]"}, "embed_tokens would train"},
		"magnitudes":       {[]string{"lora.target_modules=[lm_head]", "lora.use_dora=true", "lora.tie=keep"}, "no longer one matrix"},
		"pissa":            {[]string{"lora.target_modules=[lm_head]", "lora.init=pissa", "lora.tie=keep"}, "another lora.init"},
		"patterns":         {[]string{"lora.target_modules=[lm_head]", "lora.rank_pattern={lm_head: 2}", "lora.tie=keep"}, "name both or neither"},
		"untie what is":    {[]string{"model.adapter_in=" + kept.Result, "lora.tie=untie"}, "was trained with ensure_weight_tying"},
		"keep what is not": {[]string{"model.adapter_in=" + plain.Result, "lora.tie=keep"}, "was trained without ensure_weight_tying"},
		"continue":         {[]string{"model.adapter_in=" + head.Result}, "choose tie: untie"},
		"merge":            {[]string{"model.adapter_in=" + head.Result, "model.adapter_in_mode=merge", "lora.target_modules=[q_proj]", "lora.tie=untie"}, "fuse it first"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := train.Run(context.Background(), parse(t, t.TempDir(), tied, append(c.sets, "train.max_steps=1")...), train.Options{Backend: b})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}
