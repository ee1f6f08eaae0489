//go:build !(cgo && linux)

package compilecache

// Install does nothing where no plugin can be loaded.
func Install(string) bool { return false }
