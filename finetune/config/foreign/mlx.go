package foreign

import (
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// mlx is mlx-lm's configurations for its lora command.
var mlx = &Tool{
	Name:    "mlx",
	Base:    "model",
	convert: (*converter).mlx,
	because: map[string]string{
		"train": "finetune trains", "test": "eval measures a set of rows", "test_batches": "eval measures a set of rows",
		"optimizer_config.*": "only AdamW's weight_decay, betas and eps are known", "config": "a file cannot name another",
		"lr_schedule.*": "it is read from name, arguments and warmup alone", "report_to": "nothing is sent anywhere; log.plot draws the curves",
		"project_name": "nothing is sent anywhere; log.plot draws the curves", "clear_cache_threshold": "memory is planned ahead",
	},
}

func (c *converter) mlx() {
	c.base("model")
	tune, ok := c.text("fine_tune_type")
	switch {
	case !ok || tune == "lora":
		c.set("tune", "lora")
	case tune == "dora" || tune == "full":
		c.set("tune", tune)
	default:
		c.refuse("fine_tune_type", "%s is not in this version; lora, dora and full are", strictyaml.Clip(tune))
	}
	if v, ok := c.boolean("train"); ok && !v {
		c.drop("train", "%s", c.tool.because["train"])
	}
	c.mlxLoRA()

	if v, ok := c.text("data"); ok {
		c.sources("data.train", []source{{path: v}})
	}
	c.asNumber("max_seq_length", "data.max_length")
	if v, ok := c.boolean("mask_prompt"); ok && v {
		c.set("data.train_on", "auto")
	} else {
		c.set("data.train_on", "all")
	}
	c.asText("adapter_path", "run.output_dir")
	c.setDefault("run.output_dir", "adapters")
	c.asNumber("seed", "run.seed")
	c.asNumber("iters", "train.max_steps")
	c.asNumber("batch_size", "train.micro_batch")
	c.asNumber("grad_accumulation_steps", "train.grad_accum")
	c.asNumber("learning_rate", "optim.lr")
	c.asNumber("steps_per_report", "log.every")
	c.asNumber("steps_per_eval", "eval.every")
	c.asNumber("save_every", "save.every")
	c.asNumber("val_batches", "eval.max_batches")
	if v, ok := c.boolean("grad_checkpoint"); ok {
		c.set("train.gradient_checkpointing", map[bool]string{true: "block", false: "none"}[v])
	}
	if v, ok := c.text("resume_adapter_file"); ok {
		c.set("model.adapter_in", strictyaml.WriteText(v))
		c.note("model.adapter_in is an adapter of mlx-lm; convert it to PEFT's form first and give that directory")
	}
	c.setDefault("data.packing", "none")
	c.mlxOptimizer()
	for _, d := range []struct{ ours, value string }{{"run.seed", "0"}, {"train.max_steps", "1000"}, {"train.micro_batch", "4"}, {"train.grad_accum", "1"},
		{"optim.lr", "1e-5"}, {"optim.clip", "0"}, {"log.every", "10"}, {"eval.every", "200"}, {"eval.max_batches", "25"}, {"save.every", "100"},
		{"train.gradient_checkpointing", "none"}} {
		c.setDefault(d.ours, d.value)
	}
}

// mlxLoRA reads the adapter. Its scale is our alpha over the rank, and its num_layers are counted from the end.
func (c *converter) mlxLoRA() {
	rank, ok := c.number("lora_parameters.rank")
	if !ok {
		rank = 8
	}
	scale, ok := c.number("lora_parameters.scale")
	if !ok {
		scale = 20
	}
	c.set("lora.r", number(rank))
	c.set("lora.alpha", number(scale*rank))
	c.asNumber("lora_parameters.dropout", "lora.dropout")
	if _, ok := c.index["lora_parameters.keys"]; ok {
		c.modules("lora_parameters.keys")
	}
	n, given := c.number("num_layers")
	if !given {
		n = 16
	}
	base := ""
	if i, ok := c.index["model"]; ok {
		base = c.entries[i].value.Value
	}
	layers := 0
	if c.options.Layers != nil {
		layers = c.options.Layers(base)
	}
	switch {
	case n < 0: // all
	case layers == 0:
		c.drop("num_layers", "the checkpoint is not at hand to count its layers from the end; set lora.layers_to_transform")
		c.note("mlx-lm tunes the last %s layers; here all are, unless lora.layers_to_transform lists them", number(n))
	case int(n) < layers:
		var list []string
		for l := layers - int(n); l < layers; l++ {
			list = append(list, number(float64(l)))
		}
		c.set("lora.layers_to_transform", "["+strings.Join(list, ", ")+"]")
	}
}

func (c *converter) mlxOptimizer() {
	name, ok := c.text("optimizer")
	if !ok {
		name = "adam"
	}
	at := "optimizer_config." + name + "."
	switch name {
	case "adamw":
		c.asNumber(at+"weight_decay", "optim.weight_decay")
		c.setDefault("optim.weight_decay", "0.01")
	default:
		if name != "adam" {
			c.drop("optimizer", "the optimizer here is AdamW")
		}
		c.set("optim.weight_decay", "0") // AdamW without decay is Adam
	}
	c.asNumbers(at+"betas", "optim.betas")
	c.asNumber(at+"eps", "optim.eps")
	curve, ok := c.text("lr_schedule.name")
	if !ok {
		c.set("schedule.kind", "constant")
		c.set("schedule.warmup_steps", "0")
		return
	}
	switch curve {
	case "cosine_decay", "linear_schedule":
		c.set("schedule.kind", map[string]string{"cosine_decay": "cosine", "linear_schedule": "linear"}[curve])
	default:
		c.drop("lr_schedule.name", "there is no such curve here; cosine was taken")
		c.set("schedule.kind", "cosine")
	}
	c.asNumber("lr_schedule.warmup", "schedule.warmup_steps")
	if _, ok := c.ours["schedule.warmup_steps"]; !ok {
		c.set("schedule.warmup_steps", "0")
	}
	if args, ok := c.words("lr_schedule.arguments"); ok && len(args) == 3 {
		c.mlxArguments(curve, args)
	} else {
		c.set("schedule.min_lr_ratio", "0.0")
	}
}

// mlxArguments reads (highest, steps, lowest) of cosine_decay, and (highest, lowest, steps) of linear_schedule.
func (c *converter) mlxArguments(curve string, args []string) {
	lowest := args[2]
	if curve == "linear_schedule" {
		lowest = args[1]
	}
	high, ok1 := strictyaml.NumericText(args[0])
	low, ok2 := strictyaml.NumericText(lowest)
	if !ok1 || !ok2 || high <= 0 || low < 0 || low > high {
		c.drop("lr_schedule.arguments", "they are not a learning rate, steps and the lowest learning rate")
		return
	}
	c.set("optim.lr", number(high))
	c.set("schedule.min_lr_ratio", share(low/high))
}
