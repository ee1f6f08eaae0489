package chat

import (
	"embed"
	"strings"
)

//go:embed templates/*.jinja
var bundled embed.FS

// Bundled returns the text of a chat template that merges can give a model by its name: alpaca, chatml, exaone, llama3 or mistral. They
// write the formats of the model families of those names, and mark nothing for training: readers without that extension take them too.
func Bundled(name string) (source string, ok bool) {
	if strings.ContainsAny(name, `/\.`) {
		return "", false
	}
	data, err := bundled.ReadFile("templates/" + name + ".jinja")
	return strings.TrimRight(string(data), "\n"), err == nil
}
