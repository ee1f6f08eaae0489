package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// elsewhere are keys that other tools have, with what they are called here.
var elsewhere = map[string]string{
	"lora_r": "lora.r", "rank": "lora.r", "lora_rank": "lora.r", "lora_alpha": "lora.alpha", "lora_dropout": "lora.dropout",
	"lora_target_modules": "lora.target_modules", "keys": "lora.target_modules", "init_lora_weights": "lora.init", "adapter": "tune",
	"finetuning_type": "tune", "stage": "method", "learning_rate": "optim.lr", "optimizer": "optim.name", "adam_beta1": "optim.betas",
	"adam_beta2": "optim.betas", "max_grad_norm": "optim.clip", "lr_scheduler": "schedule.kind", "lr_scheduler_type": "schedule.kind",
	"schedule_offset": "schedule.offset", "num_epochs": "train.epochs", "num_train_epochs": "train.epochs", "iters": "train.max_steps",
	"batch_size": "train.micro_batch", "micro_batch_size": "train.micro_batch", "per_device_train_batch_size": "train.micro_batch",
	"gradient_accumulation_steps": "train.grad_accum", "grad_checkpoint": "train.gradient_checkpointing", "datasets": "data.train",
	"dataset": "data.train", "sequence_len": "data.max_length", "cutoff_len": "data.max_length", "max_seq_length": "data.max_length",
	"max_seq_len": "data.max_length", "sample_packing": "data.packing", "packed": "data.packing", "val_set_size": "data.valid_split",
	"base_model": "model.base", "model_name_or_path": "model.base", "torch_dtype": "model.dtype",
	"output": "run.output_dir", "patience": "eval.early_stopping.patience", "eval_steps": "eval.every", "save_steps": "save.every",
	"epochs": "train.epochs", "max_steps": "train.max_steps", // the phases of sparse have them too
	"ft_params_num": "sparse.count", "ft_params_proportion": "sparse.share", "full_l1_reg": "sparse.full.reg", "sparse_l1_reg": "sparse.masked.reg",
	"n_ft_iterations": "sparse.rounds", "freeze_layer_norm": "sparse.norms", "freeze_decoder": "sparse.head", "on": "sparse.on_top_of",
	"logging_steps": "log.every", "chat_template_path": "data.chat_template", "template": "data.chat_template",
}

// unknown reports a key that its place does not have: with the place where it belongs if the word is known, else with the nearest key.
func (d *decoder) unknown(f strictyaml.Field, path string, keys []key) {
	in := ""
	if path != "" {
		in = " in " + path
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	home := elsewhere[f.Key]
	if home == "" {
		home = homeOf(f.Key)
	}
	near := strictyaml.Nearest(f.Key, names)
	hint := "it has " + strictyaml.Listed(names)
	switch {
	case home != "" && (near == "" || near != lastOf(home)):
		hint = "write it as " + home
	case near != "":
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	d.Errorf(f.At, "unknown key %s%s; %s", strictyaml.Quoted(f.Key), in, hint)
}

// homeOf finds the one place that has a key of this name, "" if there is none or more than one.
func homeOf(name string) string {
	home := ""
	for _, path := range paths(reflect.TypeFor[Config](), "") {
		if lastOf(path) == name && !strings.Contains(path, "[") {
			if home != "" {
				return ""
			}
			home = path
		}
	}
	return home
}

func lastOf(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// paths lists the paths of all keys below a struct, sections included.
func paths(t reflect.Type, at string) []string {
	var list []string
	for _, k := range keysOf(t) {
		path := join(at, k.name)
		list = append(list, path)
		f := t.Field(k.index).Type
		switch {
		case f == reflect.TypeFor[Modules](), f == reflect.TypeFor[Every]():
		case f == reflect.TypeFor[[]Source]():
			list = append(list, paths(f.Elem(), path+"[]")...)
		case f.Kind() == reflect.Struct:
			list = append(list, paths(f, path)...)
		}
	}
	return list
}
