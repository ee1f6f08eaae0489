package config

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// Method is what a run learns from. A new one is a file with a Method and a line in methods.
type Method struct {
	// Name in the file.
	Name string
	// Summary says in a line what rows it takes and what it learns.
	Summary string
	// Args are the keys of method_args that it has.
	Args []Arg
	// Defaults changes the defaults of other sections; tune is known by then. May be nil.
	Defaults func(c *Config)
}

// Arg is a key of method_args.
type Arg struct {
	Name string
	// Doc says what it does.
	Doc string
	// Default is a bool, a float64 or a string, and so says the argument's type.
	Default any
	// Check says what is wrong with a value of that type, "" if nothing is. May be nil.
	Check func(value any) string
}

// methods are those of this version.
var methods = []*Method{methodSFT, methodCPT}

// planned are names that are known and not available yet.
var planned = []string{"dpo", "lndpo", "simpo", "ipo", "hinge", "kto", "bco", "reward_bt", "reward_reg", "contrastive", "muscle", "reclora",
	"ltsft", "graft", "edit", "verifier"}

// Methods lists the methods of this version.
func Methods() []*Method { return slices.Clone(methods) }

// methodNamed finds a method of this version, nil if there is none of that name.
func methodNamed(name string) *Method {
	i := slices.IndexFunc(methods, func(m *Method) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return methods[i]
}

func methodNames() []string {
	names := make([]string, len(methods))
	for i, m := range methods {
		names[i] = m.Name
	}
	return names
}

// method checks the method and fills in its arguments.
func (d *decoder) method(c *Config) {
	m := methodNamed(c.Method)
	if m == nil {
		names := methodNames()
		switch near := strictyaml.Nearest(c.Method, append(names, planned...)); {
		case c.Method == "ltsft":
			d.fault("method", "ltsft is a way to tune and not a method: write tune: sparse, with method sft or cpt")
		case slices.Contains(planned, c.Method):
			d.fault("method", "%s is not available in this version; it has %s", c.Method, strictyaml.Listed(names))
		case near != "":
			d.fault("method", "unknown method %s; did you mean %q?", strictyaml.Quoted(c.Method), near)
		default:
			d.fault("method", "unknown method %s; this version has %s", strictyaml.Quoted(c.Method), strictyaml.Listed(names))
		}
		return
	}
	d.methodArgs(m, c)
}

// methodArgs checks the arguments against those that the method has, and fills in the others.
func (d *decoder) methodArgs(m *Method, c *Config) {
	var names []string
	for _, a := range m.Args {
		names = append(names, a.Name)
		v, given := c.MethodArgs[a.Name]
		if !given {
			c.MethodArgs[a.Name] = a.Default
			continue
		}
		at := "method_args." + a.Name
		if want, got := fmt.Sprintf("%T", a.Default), fmt.Sprintf("%T", v); want != got {
			d.fault(at, "must be %s; here is %s", map[string]string{"bool": "true or false", "float64": "a number", "string": "text"}[want],
				strictyaml.Describe(d.where[at]))
			continue
		}
		if a.Check != nil {
			if wrong := a.Check(v); wrong != "" {
				d.fault(at, "%s", wrong)
			}
		}
	}
	for _, name := range sortedKeys(c.MethodArgs) {
		if slices.Contains(names, name) {
			continue
		}
		at := "method_args." + name
		near := strictyaml.Nearest(name, names)
		switch {
		case len(names) == 0:
			d.fault(at, "method %s has no arguments; remove it", m.Name)
		case near != "":
			d.fault(at, "method %s has no such argument; did you mean %q?", m.Name, near)
		default:
			d.fault(at, "method %s has no such argument; it has %s", m.Name, strictyaml.Listed(names))
		}
	}
}
