// Package docs holds the documentation and the tests that keep it true: every recipe in it is run, and what it says about
// parameters is compared with the registry of methods.
package docs
