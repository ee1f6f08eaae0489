// Package symmetry says which changes of a network's weights leave its function as it is: the symmetry spec of an
// architecture, as data.
//
// The words, used the same way everywhere in this program:
//
//   - A Group is a set of features that can be exchanged, or turned, without anyone noticing: the units of a hidden layer, the
//     residual stream, the heads of a layer, the rotary planes of a key head. Its Kind says which maps are allowed.
//   - A Ref is a place where a group's features lie: an axis of a tensor, or a stretch of one. Its Role says how a map acts there.
//   - An axis without a ref is fixed: pixels, vocabulary, classes. Fixed axes are what anchors the other groups.
//   - A Norm is a normalisation whose gain can be folded into the maps that read it, so that a stream may be turned.
//   - An element of a group is one map (merge/align keeps them); a Spec's element is one of every group.
//
// The package knows names, shapes and config.json, and never touches a weight.
//
// # Spec files
//
// specs/NAME.yml is the spec of the family NAME; users write such files for families of their own. An example, shortened:
//
//	model_type: llama
//	vars:
//	  hidden: hidden_size
//	  heads: num_attention_heads
//	  kv: num_key_value_heads or heads
//	  head: head_dim or hidden / heads
//	  per: heads / kv
//	index: {i: num_hidden_layers, g: kv}
//	groups:
//	  res:
//	    kind: [perm, signed_perm, orthogonal]
//	    size: hidden
//	    refs:
//	      - model.embed_tokens.weight[1] write
//	      - model.layers.{i}.:
//	          - input_layernorm.weight[0] gain > self_attn.{q,k,v}_proj.weight[1]
//	          - self_attn.o_proj.{weight,bias?}[0] write
//	  vo.{i}.{g}:
//	    kind: [orthogonal, invertible]
//	    size: head
//	    parent: kv.{i}
//	    block: g
//	    refs:
//	      - model.layers.{i}.self_attn.v_proj.{weight,bias?}[0] write offset=g*head
//	      - model.layers.{i}.self_attn.o_proj.weight[1] read offset=g*per*head tile=per
//
// Its keys:
//
//	model_type   the value, or values, of model_type in config.json
//	same: NAME   take everything from the spec NAME that is not given here; vars, index, prefixes, also, tied and groups of the
//	             same name replace those, new ones are added
//	drop         groups of the spec under same that this family does not have
//	vars         numbers, in order: expressions over keys of config.json and variables above
//	index        variables that count: i from 0 below the number given
//	prefixes     what files of the same model put before the names, or leave out: "model."
//	also         endings under which a tensor is also found: {LayerNorm.weight: LayerNorm.gamma}
//	tied         {NAME: SHARED}: the tensor NAME is the tensor SHARED if the variable tied is not 0
//	groups       the groups by their ids, parents before what lies inside of them. {i} in an id makes a group for every i
//
// The keys of a group:
//
//	kind         one kind or several, the narrowest first
//	default      which of them is taken unless something else is asked for; the last, if absent. Where a shared tensor would have
//	             to be untied, the default is never orthogonal
//	size         how many features
//	parent       the head_group inside of whose blocks this group acts
//	block        which of them, counted after the parent has acted
//	if           the group is there if this is not 0
//	restrict     sign or scale: of rope_plane
//	interleaved  true: the planes of a rope_plane are neighbours
//	positive     true: the scales of scaled_perm are positive
//	refs         a list of lines, or of maps from a common prefix to such lists
//
// A line is
//
//	NAME[AXIS] ROLE [offset=N] [block=N] [tile=N] [step=N] [shift=N] [silent] [if=N] [> NAME[AXIS]...]
//
// NAME? is an optional tensor: without it, the ref is not there either. {a,b} in a name means one ref for each, {a,b?} that the second
// is optional; {i} is a variable, and a line with an index that the group's id does not have stands for all of its values. ROLE is
// write, read or gain; gain+1 is the gain of a norm that multiplies by one plus the tensor. What stands behind > are the tensors that
// read what that norm gives: refs that read, and the norm can be folded into them. Without offset the ref has to fill the axis, so that a
// wrong size is noticed. tile repeats the features one behind the other, step says how far apart the repetitions are if that is more. shift=1 says that
// what is scaled is one plus the tensor.
//
// Expressions are whole numbers, variables, keys of config.json (also dotted ones), + - * / and parentheses; "a or b" is b where
// config.json lacks a or says null, true and false are 1 and 0, !a is 1 if a is 0; has(NAME) is 1 if there is a tensor NAME, class(END)
// if the model's class in config.json has this ending. In a line they have no spaces.
//
// A group that is left without a ref that reads, or without one that writes, because those were optional, is dropped: its features are
// the model's output or input, and stay where they are. So is a group of a single feature that can only be exchanged.
package symmetry
