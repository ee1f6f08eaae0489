// Package ui is a page to work in: a server on the loopback address, and the page that it serves, which opens checkpoints, edits recipes,
// runs them and shows what came of it. It calls what the commands call, and knows no flag and no terminal.
//
// The words, used the same way everywhere in this package:
//
//   - The folder is the directory that the server was started for. Paths of requests are relative to it and written with slashes.
//   - A named model is one outside the folder that a recipe names. It may be looked at, and nothing else beside the folder may.
//   - A run is one merge. There is one at a time; it belongs to the server and not to a page, so that any page sees it and closing one
//     changes nothing.
//   - The key is the secret in the address that the program prints; whoever brings it gets the cookie, the secret of all other requests.
//
// # What is refused
//
// A page from elsewhere that the same browser shows can send requests here, and a name of its own can be made to lead here (DNS rebinding).
// So the guard lets a request pass only if it is addressed to a loopback name with this port, comes from the server's own page or from no
// page at all, and brings a secret, which is told to no other port (guard.go). Paths cannot leave the folder, neither by .. nor through a symbolic link (folder.go). The page
// runs no script but the files of this package, by its Content-Security-Policy; what merges have written is shown in a frame without
// scripts. Nothing is fetched from a network.
package ui
