package foreign

import (
	"fmt"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// axolotl's configurations: one flat YAML file.
var axolotl = &Tool{
	Name:    "axolotl",
	Base:    "base_model",
	convert: (*converter).axolotl,
	because: map[string]string{
		"base_model_config": "the checkpoint tells", "model_type": "the checkpoint tells", "tokenizer_type": "the checkpoint tells",
		"is_llama_derived_model": "the checkpoint tells", "is_mistral_derived_model": "the checkpoint tells", "lora_fan_in_fan_out": "the checkpoint tells",
		"pad_to_sequence_len": "sequences are padded to data.buckets", "eval_sample_packing": "evaluation is packed as training is",
		"special_tokens*": "the tokenizer's files tell", "tokens*": "no token is added to the vocabulary",
		"dataset_prepared_path": "rows are not prepared ahead", "group_by_length": "data.buckets group rows by length",
		"chat_template_jinja": "write the template into a file and name it in data.chat_template", "strict": "files are always read strictly",
		"eval_table_size": "no table of answers is written", "loss_watchdog*": "a run ends after losses that are no numbers",
	},
}

func (c *converter) axolotl() {
	c.base("base_model")
	if v, ok := c.text("rl"); ok {
		c.refuse("rl", "%s learns from preferences, which this version does not; sft and cpt are here", strictyaml.Clip(v))
	}
	adapter, given := c.text("adapter")
	switch {
	case !given || adapter == "":
		c.set("tune", "full")
	case adapter == "lora" || adapter == "qlora":
		c.set("tune", "lora")
		if adapter == "qlora" {
			c.drop("adapter", "4-bit bases are not read; lora was taken, with the base in model.dtype")
		}
	default:
		c.refuse("adapter", "%s is no adapter of this version; it has lora", strictyaml.Clip(adapter))
	}
	if v, ok := c.boolean("peft_use_dora"); ok && v {
		c.set("tune", "dora")
	}
	c.quantised("load_in_8bit", "load_in_4bit")
	c.lora("lora_r", "lora_alpha", "lora_dropout")
	c.modules("lora_target_modules", "all-linear")
	if v, ok := c.boolean("lora_target_linear"); ok && v {
		c.set("lora.target_modules", "all-linear")
	}
	c.asWords("lora_modules_to_save", "lora.modules_to_save")
	c.asBool("peft_use_rslora", "lora.use_rslora")
	c.asNumbers("peft_layers_to_transform", "lora.layers_to_transform")
	c.asText("lora_model_dir", "model.adapter_in")
	c.asNumber("loraplus_lr_ratio", "optim.lora_plus_ratio")

	c.sources("data.train", c.axolotlSets("datasets"))
	c.sources("data.valid", c.axolotlSets("test_datasets"))
	c.asNumber("sequence_len", "data.max_length")
	if v, ok := c.boolean("sample_packing"); ok {
		c.set("data.packing", map[bool]string{true: "bfd", false: "none"}[v])
	}
	if v, ok := c.boolean("train_on_inputs"); ok {
		c.set("data.train_on", map[bool]string{true: "all", false: "auto"}[v])
	}
	c.validShare("val_set_size")
	switch v, ok := c.text("chat_template"); {
	case !ok || v == "tokenizer_default" || v == "jinja":
	case v == "chatml":
		c.set("data.chat_template", v)
	default:
		c.drop("chat_template", "the checkpoint's own template is used; data.chat_template names a file with another")
	}
	c.asBool("use_tensorboard", "log.tensorboard")
	c.asBool("shuffle_merged_datasets", "data.shuffle")

	c.asText("output_dir", "run.output_dir")
	c.asNumber("seed", "run.seed")
	c.asNumber("micro_batch_size", "train.micro_batch")
	c.asNumber("gradient_accumulation_steps", "train.grad_accum")
	epochs, hasEpochs := c.number("num_epochs")
	if hasEpochs {
		c.set("train.epochs", number(epochs))
	} else {
		epochs = 1
	}
	if v, ok := c.number("max_steps"); ok && v > 0 {
		c.set("train.max_steps", number(v))
	}
	c.asNumber("learning_rate", "optim.lr")
	c.asNumber("max_grad_norm", "optim.clip")
	c.optimizer("optimizer")
	c.asNumber("cosine_min_lr_ratio", "schedule.min_lr_ratio")
	c.scheduler("lr_scheduler", "cosine")
	c.precision()
	if v, ok := c.text("gradient_checkpointing"); ok {
		c.set("train.gradient_checkpointing", map[bool]string{true: "none", false: "block"}[strings.EqualFold(v, "false")])
	} else {
		c.setDefault("train.gradient_checkpointing", "none")
	}
	for _, t := range []struct{ per, steps, ours string }{{"evals_per_epoch", "eval_steps", "eval.every"}, {"saves_per_epoch", "save_steps", "save.every"}} {
		if n, ok := c.number(t.per); ok {
			if n <= 0 {
				c.set(t.ours, "0")
			} else {
				c.set(t.ours, share(1/max(1, n*epochs)))
			}
		} else if n, ok := c.number(t.steps); ok {
			c.set(t.ours, every(n))
		}
	}
	if v, ok := c.number("save_total_limit"); ok && v >= 1 {
		c.set("save.keep", number(v))
	}
	if v, ok := c.number("logging_steps"); ok {
		c.set("log.every", every(v))
	}
	c.asNumber("early_stopping_patience", "eval.early_stopping.patience")
	c.setDefault("train.micro_batch", "1")
	c.setDefault("train.grad_accum", "1")
	c.setDefault("data.max_length", "512")
	c.setDefault("data.packing", "none")
}

// precision reads bf16, which is a boolean, auto or full.
func (c *converter) precision() {
	if v, ok := c.text("bf16"); ok && !strings.EqualFold(v, "false") {
		if v == "auto" {
			c.set("model.dtype", "auto")
		} else {
			c.set("model.dtype", "bfloat16")
		}
	}
	if v, ok := c.text("fp16"); ok && !strings.EqualFold(v, "false") && v != "" {
		c.drop("fp16", "%s", everywhere["fp16"])
	}
	if v, ok := c.text("tf32"); ok && !strings.EqualFold(v, "false") {
		c.drop("tf32", "%s", everywhere["tf32"])
	}
}

// validShare reads a share of the rows; a number of rows has no counterpart.
func (c *converter) validShare(key string) {
	v, ok := c.number(key)
	switch {
	case !ok:
	case v >= 0 && v < 1:
		if _, files := c.ours["data.valid"]; !files {
			c.set("data.valid_split", share(v))
		}
	default:
		c.drop(key, "a number of rows cannot be given, only a share: data.valid_split, such as 0.05")
	}
}

// axolotlSets reads sets of rows.
func (c *converter) axolotlSets(key string) []source {
	var list []source
	for i := 0; c.has(fmt.Sprintf("%s[%d]", key, i)); i++ {
		at := fmt.Sprintf("%s[%d].", key, i)
		s := source{}
		s.path, _ = c.text(at + "path")
		if files, ok := c.words(at + "data_files"); ok && len(files) > 0 {
			s.path = files[0]
			if len(files) > 1 {
				c.drop(at+"data_files", "only the first file was taken; add the others to %s", "data.train")
			}
			c.text(at + "ds_type") // the file's name tells
		}
		if v, ok := c.text(at + "ds_type"); ok && v != "json" {
			c.drop(at+"ds_type", "rows are read from JSON lines only")
		}
		if v, ok := c.text(at + "type"); ok {
			word, _, _ := strings.Cut(v, ":")
			s.format = map[string]string{"alpaca": "alpaca", "chat_template": "messages", "sharegpt": "sharegpt", "completion": "text"}[word]
			if s.format == "" {
				c.drop(at+"type", "there is no such format here; the rows' own keys decide")
			}
		}
		if s.path == "" {
			c.note("%s[%d] names no file", key, i)
			continue
		}
		list = append(list, s)
	}
	return list
}
