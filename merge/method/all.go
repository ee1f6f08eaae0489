package method

// methods is the registry: one line per method, in the order in which documentation lists them.
var methods = []*Method{
	Linear,
}

// aliases are second names that recipes may use.
var aliases = map[string]string{
	"uniform_soup": "linear",
}
