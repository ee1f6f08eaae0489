// Package compilecache keeps compiled XLA programs on the disk, so that the second run of the same model starts without
// compiling.
//
// XLA plugins are reached through the PJRT C API, a table of functions. Install puts a function of its own in the table's place
// for compiling: it looks the program up by a hash of everything that the result depends on, loads what is there, or compiles
// and stores. Whatever goes wrong with the cache, the program is compiled as it would be without.
package compilecache
