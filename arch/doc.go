// Package arch says what a checkpoint is: which tensors a model of a family has, in which modules and layers, which of them
// may be absent, which go by other names, which have a vocabulary axis, and where its configuration keeps the layer count.
//
// The words, used the same way everywhere in this program:
//
//   - An Arch is the description of a family. The built-in ones are the files of the folder families, one each; an Arch for
//     any other checkpoint is inferred from the tensors' own names.
//   - A Module is a part of a model with a stack of layers of its own. Most families have one, called default; an
//     encoder-decoder or a vision-language model has several.
//   - A Weight is one entry: a name, or for a layer a template of names with variables in braces, its aliases (other names
//     of the same tensor in other checkpoints) and its tied names (tensors that stand in for it where the model shares them).
//   - A layer template is what is repeated for each layer; pre and post are what stands before and after the stack.
//   - A fused tensor holds all experts of a layer, [experts, rows, columns]; its pieces are the tensors of the single
//     experts, in the order in which their bytes make up the fused one.
//
// The package knows names, shapes and config.json, and never touches a weight.
//
// # Family files
//
// families/NAME.yml describes the family NAME. Its keys:
//
//	model_type, classes   what config.json says in model_type and architectures
//	same: OTHER           take layers, pre, layer and post from OTHER where they are not given here, and extra along with
//	                      layer; OTHER/MODULE names a module of a family that has several
//	layers                the key of config.json that counts the layers (num_hidden_layers if absent), or a fixed number
//	pre, layer, post      the weights, in order
//	extra                 optional weights at the end of the layer template: parts that a switch in config.json adds
//	modules               a list of {name, prefix, same, layers, pre, layer, post, extra} for families with several modules
//	rename                "OLD > NEW": names that begin with OLD are also found under NEW
//	tag_along             files that go with the output beside tokenizer and generation settings
//	vocab                 the key of config.json with the vocabulary size (vocab_size if absent)
//	experts               {count: KEY, layer: …}: weights with {e}, repeated for each expert
//	later                 {from: KEY, or: N, drop: PREFIX, add: …}: layers from the number in KEY on have the weights of add
//	                      in place of those whose names begin with PREFIX
//
// A list of weights is a YAML list of lines, or a map from a common prefix to such a list. A prefix may have alternatives,
// "A ~ B": each weight under it is also found with B in place of A. A line is
//
//	NAME [vocab] [?] [as DTYPE] [~ ALIAS…] [= TIED…]
//
// where vocab marks a vocabulary on axis 0, ? an optional weight, as a dtype that the tensor keeps whatever the recipe
// says. {a,b} in a name means one weight for each; aliases with as many alternatives follow along. Aliases are relative to
// the prefix, as the name is; tied names are whole names (a module's prefix is put before them too). Variables are {i},
// {i+1}, {i-1} and {2i} for the layer, {L}, {L+1} and {L-1} for the number of layers.
package arch
