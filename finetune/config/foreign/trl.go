package foreign

import "github.com/mergekit/mergekit/internal/strictyaml"

// trl's configurations: the arguments of its sft script, as a YAML file.
var trl = &Tool{
	Name:    "trl",
	Base:    "model_name_or_path",
	convert: (*converter).trl,
	because: map[string]string{
		"dataset_train_split": "a file has no splits; data.train and data.valid name files", "dataset_test_split": "a file has no splits; data.train and data.valid name files",
		"dataset_config": "a file has no configurations", "dataset_text_field": "text is read from the key text",
		"dataset_num_proc": "run.threads", "lora_task_type": "the checkpoint tells", "model_revision": "a directory has no revisions",
		"eos_token": "the tokenizer's files tell", "pad_token": "padding is masked by place",
		"per_device_eval_batch_size": "evaluation takes micro batches of train.micro_batch",
		"padding_free":               "sequences are padded to data.buckets", "use_liger_kernel": "the compiler fuses",
		"beta": "preference methods are not in this version", "precompute_ref_log_probs": "preference methods are not in this version",
	},
}

func (c *converter) trl() {
	c.base("model_name_or_path")
	if v, ok := c.text("loss_type"); ok && v != "nll" {
		c.refuse("loss_type", "%s is no loss of this version; nll is", strictyaml.Clip(v))
	}
	peft, _ := c.boolean("use_peft")
	if peft {
		c.set("tune", "lora")
		c.lora("lora_r", "lora_alpha", "lora_dropout")
		c.setDefault("lora.r", "16")
		c.setDefault("lora.alpha", "32")
		c.setDefault("lora.dropout", "0.05")
		c.modules("lora_target_modules", "all-linear")
		c.asWords("lora_modules_to_save", "lora.modules_to_save")
		c.asBool("use_rslora", "lora.use_rslora")
		if v, ok := c.boolean("use_dora"); ok && v {
			c.set("tune", "dora")
		}
	} else {
		c.set("tune", "full")
	}
	c.quantised("load_in_8bit", "load_in_4bit")
	key := "dataset_name"
	if !c.has(key) {
		key = "dataset_path"
	}
	if v, ok := c.text(key); ok {
		c.sources("data.train", []source{{path: v}})
	}
	for i := 0; ; i++ { // datasets: [{path: ...}] of newer versions
		at := "datasets[" + number(float64(i)) + "]."
		v, ok := c.text(at + "path")
		if !ok {
			break
		}
		list := []source{{path: v}}
		if i > 0 {
			c.drop(at+"path", "only the first set was taken; add this one to data.train")
			continue
		}
		c.sources("data.train", list)
	}
	length := "max_length"
	if !c.has(length) {
		length = "max_seq_length"
	}
	c.asNumber(length, "data.max_length")
	c.setDefault("data.max_length", "1024")
	strategy, _ := c.text("packing_strategy")
	if v, ok := c.boolean("packing"); ok {
		switch {
		case !v:
			c.set("data.packing", "none")
		case strategy == "wrapped" || strategy == "bfd_split":
			c.set("data.packing", strategy)
		default:
			c.set("data.packing", "bfd")
		}
	} else {
		c.setDefault("data.packing", "none")
	}
	if v, ok := c.boolean("completion_only_loss"); ok {
		c.set("data.train_on", map[bool]string{true: "completion", false: "all"}[v])
	}
	if v, ok := c.boolean("assistant_only_loss"); ok && v {
		c.set("data.train_on", "assistant")
	}
	c.asText("chat_template_path", "data.chat_template")
	c.huggingFace()
	for _, k := range []string{"dtype", "torch_dtype"} {
		if v, ok := c.text(k); ok {
			switch v {
			case "bfloat16", "float32", "auto":
				c.set("model.dtype", v)
			default:
				c.drop(k, "model.dtype is bfloat16 or float32")
			}
		}
	}
	if v, ok := c.boolean("gradient_checkpointing"); ok {
		c.set("train.gradient_checkpointing", map[bool]string{true: "block", false: "none"}[v])
	} else {
		c.setDefault("train.gradient_checkpointing", "block")
	}
	c.setDefault("optim.lr", "2e-5")
}
