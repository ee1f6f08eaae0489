package model

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// InputError says that a model cannot read what it was given: a batch that does not fit together or does not fit into it.
type InputError struct {
	File string // "" when unknown
	Msg  string // what is wrong and what to do
}

// Error renders "file: message".
func (e *InputError) Error() string {
	if e.File == "" {
		return e.Msg
	}
	return e.File + ": " + e.Msg
}

func badInput(format string, args ...any) error {
	return &InputError{Msg: fmt.Sprintf(format, args...)}
}

// ParseInput reads a batch as JSON: "input_ids", and beside it "attention_mask", "position_ids" and "token_type_ids", all lists
// of rows of the same shape. Without a mask everything is text; without positions every row counts 0, 1, 2 ... from its first
// column, padding or not, as the classes of transformers do. For a model that reads images it is "pixel_values" alone: images, of
// channels, of rows. Other keys are ignored. The error is an *InputError.
func ParseInput(data []byte) (Input, error) {
	var raw struct {
		IDs       [][]int64       `json:"input_ids"`
		Mask      [][]int64       `json:"attention_mask"`
		Positions [][]int64       `json:"position_ids"`
		Types     [][]int64       `json:"token_type_ids"`
		Pixels    [][][][]float32 `json:"pixel_values"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&raw); err != nil {
		return Input{}, badInput(`is not a batch of tokens: %v; it must look like {"input_ids": [[1, 2], [3, 4]], "attention_mask": [[1, 1], [1, 0]]}`, err)
	}
	if raw.Pixels != nil {
		return parseImages(raw.Pixels)
	}
	in := Input{Rows: len(raw.IDs)}
	if in.Rows > 0 {
		in.Length = len(raw.IDs[0])
	}
	if in.Length == 0 {
		return in, badInput(`"input_ids" must be a list of rows of token ids`)
	}
	for _, part := range []struct {
		key  string
		rows [][]int64
		to   *[]int32
		top  int64 // largest value
	}{
		{"input_ids", raw.IDs, &in.IDs, 1<<31 - 1}, {"attention_mask", raw.Mask, &in.Segments, 1},
		{"position_ids", raw.Positions, &in.Positions, 1<<31 - 1}, {"token_type_ids", raw.Types, &in.Types, 1<<31 - 1},
	} {
		if part.rows == nil {
			continue
		}
		if len(part.rows) != in.Rows {
			return in, badInput("%q has %d rows, \"input_ids\" has %d", part.key, len(part.rows), in.Rows)
		}
		list := make([]int32, 0, in.Rows*in.Length)
		for r, row := range part.rows {
			if len(row) != in.Length {
				return in, badInput("row %d of %q has %d entries, the first row of \"input_ids\" has %d; pad the rows to one length and mask the padding with zeros in \"attention_mask\"", r+1, part.key, len(row), in.Length)
			}
			for i, v := range row {
				if v < 0 || v > part.top {
					return in, badInput("row %d of %q: entry %d is %d, it must be from 0 to %d", r+1, part.key, i+1, v, part.top)
				}
				list = append(list, int32(v))
			}
		}
		*part.to = list
	}
	return in, nil
}

// parseImages flattens images of one size.
func parseImages(images [][][][]float32) (Input, error) {
	in := Input{Rows: len(images), Pixels: []float32{}}
	for i, image := range images {
		for _, channel := range image {
			for _, row := range channel {
				if len(image) != len(images[0]) || len(channel) != len(images[0][0]) || len(row) != len(images[0][0][0]) {
					return in, badInput("image %d of \"pixel_values\" has another size than the first; give [images, channels, height, width]", i+1)
				}
				in.Pixels = append(in.Pixels, row...)
			}
		}
	}
	if len(in.Pixels) == 0 {
		return in, badInput("\"pixel_values\" must be a list of images [channels, height, width]")
	}
	in.image = [3]int{len(images[0]), len(images[0][0]), len(images[0][0][0])} // like every other image, so none of them is empty
	return in, nil
}
