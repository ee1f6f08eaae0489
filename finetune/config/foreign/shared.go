package foreign

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// source is a set of rows as it is written into data.train or data.valid.
type source struct {
	path, format string
	weight       float64 // 0 for one that is not given
}

// sources writes sets of rows.
func (c *converter) sources(ours string, list []source) {
	if len(list) == 0 {
		return
	}
	items := make([]string, len(list))
	for i, s := range list {
		item := "{path: " + strictyaml.WriteText(s.path)
		if s.format != "" {
			item += ", format: " + s.format
		}
		if s.weight > 0 {
			item += ", weight: " + number(s.weight)
		}
		items[i] = item + "}"
		if !strings.ContainsAny(s.path, `.\`) && strings.Count(s.path, "/") <= 1 && !c.exists(s.path) {
			c.note("%s looks like a name on a hub or in a register; nothing is downloaded here, so give the file or folder of its rows (%s)", s.path, ours)
		}
	}
	c.set(ours, "["+strings.Join(items, ", ")+"]")
}

// base carries the checkpoint over.
func (c *converter) base(theirs string) {
	v, ok := c.text(theirs)
	if !ok {
		return
	}
	c.set("model.base", strictyaml.WriteText(v))
	if strings.Count(v, "/") == 1 && !strings.HasPrefix(v, ".") && !strings.HasPrefix(v, "/") && !c.exists(v) {
		c.note("model.base is a name on a hub, it seems; nothing is downloaded here, so give the checkpoint's directory")
	}
}

// exists says whether a path is there, seen from the file or from the working directory.
func (c *converter) exists(path string) bool {
	for _, p := range []string{path, filepath.Join(filepath.Dir(c.File), path)} {
		if _, err := os.Stat(p); err == nil {
			return true
		}
	}
	return false
}

// reports carries over where transformers' Trainer sends its numbers: event files of TensorBoard are written here, too.
func (c *converter) reports() {
	list, ok := c.words("report_to")
	if !ok {
		return
	}
	if slices.Contains(list, "tensorboard") || slices.Contains(list, "all") {
		c.set("log.tensorboard", "true")
	}
	if slices.ContainsFunc(list, func(w string) bool { return w != "tensorboard" && w != "none" }) {
		c.drop("report_to", "%s", everywhere["report_to"])
	}
}

// huggingFace takes what tools that are built on transformers' TrainingArguments share.
func (c *converter) huggingFace() {
	c.reports()
	c.asText("output_dir", "run.output_dir")
	c.asNumber("seed", "run.seed")
	c.asNumber("per_device_train_batch_size", "train.micro_batch")
	c.asNumber("gradient_accumulation_steps", "train.grad_accum")
	c.asNumber("num_train_epochs", "train.epochs")
	c.asNumber("learning_rate", "optim.lr")
	c.asNumber("max_grad_norm", "optim.clip")
	c.setDefault("train.micro_batch", "8")
	c.setDefault("train.grad_accum", "1")
	c.setDefault("train.epochs", "3")
	c.optimizer("optim")
	c.scheduler("lr_scheduler_type", "linear")
	if v, ok := c.number("max_steps"); ok && v > 0 {
		c.set("train.max_steps", number(v))
	}
	if v, ok := c.boolean("bf16"); ok && v {
		c.set("model.dtype", "bfloat16")
	}
	for _, off := range []string{"fp16", "tf32"} {
		if v, ok := c.boolean(off); ok && v {
			c.drop(off, "%s", everywhere[off])
		}
	}
	if v, ok := c.number("logging_steps"); ok {
		c.set("log.every", every(v))
	}
	c.strategy("eval", "eval_strategy", "evaluation_strategy", "eval_steps")
	c.strategy("save", "save_strategy", "save_strategy", "save_steps")
	if v, ok := c.number("save_total_limit"); ok && v >= 1 {
		c.set("save.keep", number(v))
	}
	c.asBool("load_best_model_at_end", "eval.save_best")
}

// every writes a number of steps, or a share as transformers has it: below 1.
func every(v float64) string {
	if v > 0 && v < 1 {
		return share(v)
	}
	return number(v)
}

// strategy reads when something happens: never, each epoch, or by steps.
func (c *converter) strategy(ours, key, old, steps string) {
	if !c.has(key) {
		key = old
	}
	word, given := c.text(key)
	n, counted := c.number(steps)
	switch {
	case given && word == "no":
		c.set(ours+".every", "0")
		if counted {
			c.drop(steps, "%s is no", key)
		}
	case given && word == "epoch":
		epochs, _ := c.number("num_train_epochs")
		if epochs <= 0 {
			epochs = 3
		}
		c.set(ours+".every", share(1/max(1, epochs)))
		if counted {
			c.drop(steps, "%s is epoch", key)
		}
	case counted:
		c.set(ours+".every", every(n))
	case given && word != "steps":
		c.drop(key, "only no, steps and epoch are known")
	}
}

// optimizer reads the keys of AdamW.
func (c *converter) optimizer(key string) {
	if v, ok := c.text(key); ok {
		switch {
		case !strings.HasPrefix(v, "adamw"):
			c.drop(key, "the optimizer here is AdamW")
		case strings.Contains(v, "8bit"):
			c.drop(key, "AdamW keeps its moments in float32 here; an adapter's are small")
		}
	}
	c.asNumber("weight_decay", "optim.weight_decay")
	c.asNumber("adam_epsilon", "optim.eps")
	b1, ok1 := c.number("adam_beta1")
	b2, ok2 := c.number("adam_beta2")
	if !ok1 {
		b1 = 0.9
	}
	if !ok2 {
		b2 = 0.999
	}
	if ok1 || ok2 {
		c.set("optim.betas", "["+number(b1)+", "+number(b2)+"]")
	}
	c.setDefault("optim.weight_decay", "0")
	if c.ours["method"].text == "cpt" { // whose own are others
		c.setDefault("optim.betas", "[0.9, 0.999]")
	}
}

// scheduler reads a curve of transformers', which is read at t-1 and ends at 0.
func (c *converter) scheduler(key, usual string) {
	word, given := c.text(key)
	if !given {
		word = usual
	}
	kind := map[string]string{"linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant",
		"inverse_sqrt": "inv_sqrt", "warmup_stable_decay": "wsd", "cosine_with_min_lr": "cosine"}[word]
	if kind == "" {
		c.drop(key, "there is no such curve here; the nearest, cosine, was taken")
		kind = "cosine"
	}
	c.set("schedule.kind", kind)
	if !given {
		c.ours["schedule.kind"] = setting{kind, "the default of " + c.tool.Name}
	}
	if steps, ok := c.number("warmup_steps"); ok && steps >= 1 {
		c.set("schedule.warmup_steps", number(steps))
		if ratio, ok := c.number("warmup_ratio"); ok && ratio > 0 {
			c.drop("warmup_ratio", "warmup_steps counts in its place")
		}
	} else if ok && steps > 0 { // newer versions take a share here
		c.set("schedule.warmup_ratio", share(steps))
	} else if ratio, ok := c.number("warmup_ratio"); ok {
		c.set("schedule.warmup_ratio", share(ratio))
	}
	if word == "constant" {
		c.set("schedule.warmup_ratio", "0.0")
		delete(c.ours, "schedule.warmup_steps")
	}
	if ratio, ok := c.number("lr_scheduler_kwargs.min_lr_rate"); ok {
		c.set("schedule.min_lr_ratio", share(ratio))
	}
	c.setDefault("schedule.min_lr_ratio", "0.0")
	if _, ok := c.ours["schedule.warmup_steps"]; !ok {
		c.setDefault("schedule.warmup_ratio", "0.0")
	}
	c.ours["schedule.offset"] = setting{"hf", "transformers reads its curves so"}
}

// lora reads the keys that most tools call alike.
func (c *converter) lora(rank, alpha, dropout string) {
	c.asNumber(rank, "lora.r")
	c.asNumber(alpha, "lora.alpha")
	c.asNumber(dropout, "lora.dropout")
}

// modules reads target modules: a list, or a word for all.
func (c *converter) modules(key string, all ...string) {
	words, ok := c.words(key)
	if !ok {
		return
	}
	for _, a := range all {
		if len(words) == 1 && strings.EqualFold(words[0], a) {
			c.set("lora.target_modules", "all-linear")
			return
		}
	}
	c.set("lora.target_modules", flow(words))
}

// quantised drops keys that ask for a base in few bits.
func (c *converter) quantised(keys ...string) {
	for _, k := range keys {
		if v, ok := c.text(k); ok && v != "false" && v != "False" {
			c.drop(k, "the base is kept in model.dtype, not in fewer bits: about 2 GB a billion parameters in bfloat16")
		}
	}
}

// refuse ends a conversion that would be another training than the one that was meant.
func (c *converter) refuse(path, format string, args ...any) {
	x, _ := c.take(path)
	c.Errorf(x, "%s: %s", path, fmt.Sprintf(format, args...))
}
