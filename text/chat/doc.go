// Package chat renders conversations with the chat templates that checkpoints carry, and says which bytes of the text the model
// is to produce.
//
// A chat template is a Jinja2 program that transformers runs over a list of messages; training must see the very text that
// inference will see, so the test of this package is equality with Python, character by character, and refusal where Python
// refuses. The interpreter is our own, because three things cannot be added to a general engine from outside: values with
// Python's rules (dicts that keep their order, 1 that is no 1.0, generators that run once, what prints as what), the spans of
// {% generation %} blocks in the output, and bounds on steps, text and depth. A template comes with a checkpoint that somebody
// else made: it may loop for ever, and must not take the program along.
//
// Vocabulary: a template is parsed once (Parse, or Find for a checkpoint's own) and rendered for every conversation. The
// generation prompt is what the template writes before an answer. A training variant of a stock template writes the same text
// and marks with generation blocks what its stock form does not mark.
//
// Differences from Jinja2, all refusals: no loading of other templates, no autoescape, none of the filters that make HTML, no
// printing of functions and generators (Python prints their addresses), integers of at most 4096 bits, and a filter that does
// not exist is reported when it is reached. Like Jinja2's immutable sandbox, templates cannot change lists and dicts.
package chat
