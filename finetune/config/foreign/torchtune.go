package foreign

import (
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// torchtune's configurations: a YAML file of components with their arguments, and ${references}.
var torchtune = &Tool{
	Name:    "torchtune",
	Base:    "model._component_",
	convert: (*converter).torchtune,
	because: map[string]string{
		"tokenizer.*": "the checkpoint's own tokenizer is used", "checkpointer.*": "model.base is the checkpoint's directory",
		"profiler.*": "log.plot shows the speed", "metric_logger.*": "metrics go into metrics.jsonl", "loss.*": "the loss is the cross-entropy",
		"compile": "every step is compiled", "optimizer.fused": "every step is compiled", "log_peak_memory_stats": "memory is always logged",
		"save_adapter_weights_only": "the adapter is what is saved", "enable_activation_offloading": "activations stay on the device",
		"optimizer_in_bwd": "gradients are applied by one compiled step", "lr_scheduler._component_": "there is no such curve here",
		"log_level": "nothing corresponds to it; --quiet silences",
	},
}

func (c *converter) torchtune() {
	if logger, ok := c.text("metric_logger._component_"); ok {
		if strings.HasSuffix(logger, ".TensorBoardLogger") {
			c.set("log.tensorboard", "true")
		} else {
			c.drop("metric_logger._component_", "%s", c.tool.because["metric_logger.*"])
		}
	}
	component, _ := c.text("model._component_")
	name := component[strings.LastIndexByte(component, '.')+1:]
	switch {
	case strings.HasPrefix(name, "qlora"):
		c.set("tune", "lora")
		c.drop("model._component_", "4-bit bases are not read; lora was taken, with the base in model.dtype")
	case strings.HasPrefix(name, "lora"):
		c.set("tune", "lora")
	case strings.HasPrefix(name, "dora"):
		c.set("tune", "dora")
	default:
		c.set("tune", "full")
	}
	if v, ok := c.boolean("model.use_dora"); ok && v {
		c.set("tune", "dora")
	}
	if v, ok := c.text("checkpointer.checkpoint_dir"); ok {
		c.set("model.base", strictyaml.WriteText(v))
	} else {
		c.refuse("model._component_", "checkpointer.checkpoint_dir is missing, which names the checkpoint's directory; add it")
		return
	}
	c.torchtuneLoRA()
	c.torchtuneData()
	c.asText("output_dir", "run.output_dir")
	c.asNumber("seed", "run.seed")
	if v, ok := c.text("device"); ok {
		switch v {
		case "cuda", "cpu":
			c.set("run.backend", "xla:"+v)
		default:
			c.drop("device", "run.backend is auto, go, xla:cpu or xla:cuda")
		}
	}
	if v, ok := c.text("dtype"); ok {
		switch v {
		case "bf16":
			c.set("model.dtype", "bfloat16")
		case "fp32":
			c.set("model.dtype", "float32")
		default:
			c.drop("dtype", "model.dtype is bfloat16 or float32")
		}
	}
	c.torchtuneOptimizer()
	c.asNumber("batch_size", "train.micro_batch")
	c.asNumber("gradient_accumulation_steps", "train.grad_accum")
	c.asNumber("clip_grad_norm", "optim.clip")
	c.setDefault("optim.clip", "0")
	epochs, ok := c.number("epochs")
	if ok {
		c.set("train.epochs", number(epochs))
	} else {
		epochs = 1
	}
	if v, ok := c.number("max_steps_per_epoch"); ok && v > 0 {
		c.set("train.max_steps", number(v*max(1, epochs)))
	}
	if v, ok := c.boolean("enable_activation_checkpointing"); ok {
		c.set("train.gradient_checkpointing", map[bool]string{true: "block", false: "none"}[v])
	}
	c.asNumber("log_every_n_steps", "log.every")
	c.setDefault("train.grad_accum", "1")
	c.setDefault("data.packing", "none")
	if v, ok := c.boolean("resume_from_checkpoint"); ok && v {
		c.drop("resume_from_checkpoint", "%s", everywhere["resume_from_checkpoint"])
	}
}

func (c *converter) torchtuneLoRA() {
	c.lora("model.lora_rank", "model.lora_alpha", "model.lora_dropout")
	targets, given := c.words("model.lora_attn_modules")
	for i, m := range targets {
		if m == "output_proj" { // checkpoints call it so
			targets[i] = "o_proj"
		}
	}
	if v, ok := c.boolean("model.apply_lora_to_mlp"); ok && v {
		targets = append(targets, "gate_proj", "up_proj", "down_proj")
	}
	if v, ok := c.boolean("model.apply_lora_to_output"); ok && v {
		targets = append(targets, "lm_head")
	}
	if given && len(targets) > 0 {
		c.set("lora.target_modules", flow(targets))
	}
}

// torchtuneData reads the set of rows, of which there is one, or a list that is concatenated.
func (c *converter) torchtuneData() {
	c.asNumber("tokenizer.max_seq_len", "data.max_length")
	c.asBool("shuffle", "data.shuffle")
	var list []source
	if c.has("dataset") {
		if s, ok := c.torchtuneSet("dataset."); ok {
			list = append(list, s)
		}
	}
	for i := 0; c.has("dataset[" + number(float64(i)) + "]"); i++ {
		if s, ok := c.torchtuneSet("dataset[" + number(float64(i)) + "]."); ok {
			list = append(list, s)
		}
	}
	c.sources("data.train", list)
	if s, ok := c.torchtuneSet("dataset_val."); ok {
		c.sources("data.valid", []source{s})
	}
}

func (c *converter) torchtuneSet(at string) (source, bool) {
	component, ok := c.text(at + "_component_")
	if !ok {
		return source{}, false
	}
	name := strings.TrimSuffix(component[strings.LastIndexByte(component, '.')+1:], "_dataset")
	known := map[string]source{
		"alpaca": {path: "tatsu-lab/alpaca", format: "alpaca"}, "alpaca_cleaned": {path: "yahma/alpaca-cleaned", format: "alpaca"},
		"chat": {format: "messages"}, "instruct": {format: "prompt_completion"}, "text_completion": {format: "text"},
	}
	s := known[name]
	if v, ok := c.text(at + "source"); ok {
		s.path = v
	}
	if files, ok := c.words(at + "data_files"); ok && len(files) > 0 {
		s.path = files[0]
	}
	if v, ok := c.text(at + "conversation_style"); ok && v == "sharegpt" {
		s.format = "sharegpt"
	}
	if v, ok := c.boolean(at + "packed"); ok {
		c.set("data.packing", map[bool]string{true: "bfd", false: "none"}[v])
	}
	if v, ok := c.boolean(at + "train_on_input"); ok && v {
		c.set("data.train_on", "all")
	}
	if name == "text_completion" {
		c.set("method", "cpt")
	}
	if s.path == "" {
		c.drop(at+"_component_", "it does not tell a file; write the rows as JSON lines and name the file in data.train")
		c.note("%s: write its rows as JSON lines and name the file in place of rows.jsonl", component)
		s.path = "rows.jsonl"
	}
	return s, true
}

func (c *converter) torchtuneOptimizer() {
	if v, ok := c.text("optimizer._component_"); ok {
		switch name := v[strings.LastIndexByte(v, '.')+1:]; {
		case !strings.Contains(name, "AdamW"):
			c.drop("optimizer._component_", "the optimizer here is AdamW")
		case name != "AdamW":
			c.drop("optimizer._component_", "AdamW keeps its moments in float32 here, and on the device")
		}
	}
	c.asNumber("optimizer.lr", "optim.lr")
	c.asNumber("optimizer.weight_decay", "optim.weight_decay")
	c.asNumber("optimizer.eps", "optim.eps")
	c.asNumbers("optimizer.betas", "optim.betas")
	c.setDefault("optim.weight_decay", "0.01")
	component, ok := c.text("lr_scheduler._component_")
	switch {
	case !ok:
		c.set("schedule.kind", "constant")
		c.set("schedule.warmup_steps", "0")
	case strings.HasSuffix(component, "get_cosine_schedule_with_warmup"):
		c.set("schedule.kind", "cosine")
		c.set("schedule.min_lr_ratio", "0.0")
		c.set("schedule.offset", "hf")
		c.asNumber("lr_scheduler.num_warmup_steps", "schedule.warmup_steps")
	default:
		c.drop("lr_scheduler._component_", "there is no such curve here; ours by default, cosine, was left")
	}
}
