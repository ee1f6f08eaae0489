// Package data turns files of rows into batches of token ids: formats, chat templates, masks, packing, length buckets. It
// knows no model and no graph.
package data
