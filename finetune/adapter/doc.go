// Package adapter reads, writes, fuses, combines and extracts LoRA adapters and their kin, in the files that peft loads and
// writes: adapter_config.json and adapter_model.safetensors.
//
// The words, used the same way everywhere in this package:
//
//   - A module is a part of a model with a weight: a linear map, GPT-2's Conv1D (the same, stored transposed), an embedding.
//     Its path is the one in the Hugging Face class, which is also what adapter files are keyed by; the tensor of its weight
//     may have another name in the checkpoint (a tied head has none, old GPT-2 files lack the prefix "transformer.").
//   - A target is a module that an adapter changes by a product of rank r: A is [r, in], B is [out, r], and the weight
//     W [out, in] becomes W + s·B·A, with the scale s = alpha/r, or alpha/√r for rsLoRA.
//     Hu et al., 2021, "LoRA: low-rank adaptation of large language models"; Kalajdzievski, 2023, "A rank stabilization
//     scaling factor for fine-tuning with LoRA".
//   - DoRA adds a magnitude m per row: W'_j = m_j·V_j/‖V_j‖ with V = W + s·B·A.
//     Liu et al., 2024, "DoRA: weight-decomposed low-rank adaptation".
//   - A saved module is one of modules_to_save: the adapter holds its whole weight.
//   - A delta is what an adapter does to one tensor of a checkpoint. It is computed range by range, so that a fused model
//     never has to be in memory.
//
// Everything is computed in float32 and rounded once, to the dtype that is written.
package adapter
