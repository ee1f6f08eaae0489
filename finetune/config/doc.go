// Package config is the configuration of a fine-tuning run: one YAML file in, one Config out.
//
// Words. A source is a file (or a folder) of rows. A micro batch is what one pass of the network sees; grad_accum of them make one
// optimizer step, and "step" always means the latter. A tune says which weights learn, a method what they learn from, a target module is
// a linear layer that gets an adapter. An "every" is a number of steps or a share of all of them.
//
// A file is read strictly: an unknown key, a value of the wrong type or out of range is an error with file, line and column, and the
// nearest key that exists. Numbers are those of YAML 1.1, and 1e-5 is a number too. Values given as "a.b=c" (the command's --set) win
// over the file. What neither gives has a default, which may depend on tune and method; Config.YAML writes the whole result, and that
// text reads back as the same Config.
//
// Paths that are relative mean the configuration file's folder if something exists there under that name, and the working directory
// otherwise.
//
// The package knows files of configuration only: no tensor, no tokenizer, no graph.
package config
