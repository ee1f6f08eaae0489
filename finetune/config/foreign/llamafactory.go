package foreign

import (
	"path"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// llamaFactory's configurations: one flat YAML file, names of sets of rows from a register.
var llamaFactory = &Tool{
	Name:    "llamafactory",
	Base:    "model_name_or_path",
	convert: (*converter).llamaFactory,
	because: map[string]string{
		"template":             "the checkpoint's own template is used; data.chat_template names another",
		"overwrite_output_dir": "the command line decides", "do_train": "finetune trains", "do_eval": "data.valid is measured if it is given",
		"preprocessing_num_workers": "run.threads", "dataloader_num_workers": "run.threads", "overwrite_cache": "rows are not prepared ahead",
		"per_device_eval_batch_size": "evaluation takes micro batches of train.micro_batch", "ddp_timeout": "one process drives all devices",
		"max_samples": "train.max_steps bounds a run", "include_num_input_tokens_seen": "tokens are always logged",
		"save_only_model": "checkpoints can always be resumed", "dataset_dir": "paths are relative to this file or to the working directory",
	},
}

func (c *converter) llamaFactory() {
	c.base("model_name_or_path")
	c.asText("adapter_name_or_path", "model.adapter_in")
	stage, given := c.text("stage")
	switch {
	case !given || stage == "sft":
		c.set("method", "sft")
	case stage == "pt":
		c.set("method", "cpt")
	default:
		c.refuse("stage", "%s learns from preferences, which this version does not; sft and pt are here", strictyaml.Clip(stage))
	}
	tune, given := c.text("finetuning_type")
	switch {
	case !given || tune == "lora":
		c.set("tune", "lora")
	case tune == "full":
		c.set("tune", "full")
	default:
		c.refuse("finetuning_type", "%s is not in this version; lora and full are", strictyaml.Clip(tune))
	}
	if v, ok := c.boolean("use_dora"); ok && v {
		c.set("tune", "dora")
	}
	c.lora("lora_rank", "lora_alpha", "lora_dropout")
	if tune != "full" {
		c.setDefault("lora.r", "8")
	}
	c.modules("lora_target", "all")
	c.asWords("additional_target", "lora.modules_to_save")
	c.asBool("use_rslora", "lora.use_rslora")
	c.asNumber("loraplus_lr_ratio", "optim.lora_plus_ratio")
	if v, ok := c.boolean("pissa_init"); ok && v {
		c.set("lora.init", "pissa")
		if n, ok := c.number("pissa_iter"); ok && n >= 1 && n < 100 {
			c.set("lora.init", "pissa_niter_"+number(n))
		}
	}
	c.quantised("quantization_bit")

	folder, ok := c.text("dataset_dir")
	if !ok {
		folder = "data"
	}
	c.sources("data.train", c.registered("dataset", folder))
	c.sources("data.valid", c.registered("eval_dataset", folder))
	c.asNumber("cutoff_len", "data.max_length")
	neat, _ := c.boolean("neat_packing")
	if v, ok := c.boolean("packing"); ok || neat {
		c.set("data.packing", map[bool]string{true: "bfd", false: "none"}[v || neat])
	} else if stage == "pt" {
		c.setDefault("data.packing", "wrapped")
	} else {
		c.setDefault("data.packing", "none")
	}
	if v, ok := c.boolean("train_on_prompt"); ok && v {
		c.set("data.train_on", "all")
	}
	if v, ok := c.boolean("mask_history"); ok && v {
		c.set("data.train_on", "last")
	}
	c.validShare("val_size")
	c.huggingFace()
	c.asBool("plot_loss", "log.plot")
	if v, ok := c.boolean("disable_gradient_checkpointing"); ok {
		c.set("train.gradient_checkpointing", map[bool]string{true: "none", false: "block"}[v])
	} else {
		c.setDefault("train.gradient_checkpointing", "block")
	}
	c.setDefault("optim.lr", "5e-5")
}

// registered reads names that dataset_info.json knows. A name with a dot or a slash is a path already.
func (c *converter) registered(key, folder string) []source {
	names, _ := c.words(key)
	var list []source
	for _, n := range names {
		if !strings.ContainsAny(n, "./") {
			c.note("%s is a name of dataset_info.json; see that its file is %s", n, path.Join(folder, n+".json"))
			n = path.Join(folder, n+".json")
		}
		list = append(list, source{path: n})
	}
	return list
}
