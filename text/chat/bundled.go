package chat

import (
	"embed"
	"strings"
)

//go:embed templates/*.jinja
var bundled embed.FS

// Bundled returns the text of a chat template that merges can give a model by its name: alpaca, chatml, exaone, llama3 or mistral. They
// write the formats of the model families of those names, and mark nothing for training: readers without that extension take them too.
// chatml is the text that models with this format commonly carry, so that programs that know it by its text find it.
func Bundled(name string) (source string, ok bool) {
	if strings.ContainsAny(name, `/\.`) {
		return "", false
	}
	data, err := bundled.ReadFile("templates/" + name + ".jinja")
	return string(data), err == nil
}
