// Package completion continues texts: prompts in, text out. It puts a tokenizer, a chat template and stop strings around
// model.Generate, which knows tokens only.
//
//   - A prompt is a text, or the messages of a conversation that the checkpoint's chat template turns into one.
//   - A completion is what the model wrote after it, and why it ended there.
package completion
