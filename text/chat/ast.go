package chat

// node is an expression. Every node knows its line, for errors.
type node interface{ pos() int }

type line_ int

func (l line_) pos() int { return int(l) }

type (
	constNode struct {
		line_
		value any
	}
	nameNode struct {
		line_
		name string
	}
	tupleNode struct {
		line_
		items []node
	}
	listNode struct {
		line_
		items []node
	}
	dictNode struct {
		line_
		keys, values []node
	}
	condNode struct {
		line_
		test, then, otherwise node // otherwise may be nil
	}
	logicNode struct {
		line_
		or          bool
		left, right node
	}
	notNode struct {
		line_
		x node
	}
	compareNode struct {
		line_
		first node
		ops   []string // == != < <= > >= in notin
		rest  []node
	}
	binaryNode struct {
		line_
		op          string
		left, right node
	}
	concatNode struct {
		line_
		items []node
	}
	unaryNode struct {
		line_
		op string
		x  node
	}
	attrNode struct { // x.name
		line_
		x    node
		name string
	}
	itemNode struct { // x[key]
		line_
		x, key node
	}
	sliceNode struct { // x[from:to:step]; parts may be nil
		line_
		from, to, step node
	}
	callNode struct {
		line_
		callee node
		callArgs
	}
	filterNode struct {
		line_
		x    node // nil: the body of a block
		name string
		callArgs
	}
	testNode struct {
		line_
		x    node
		name string
		callArgs
	}
)

// callArgs are the arguments of a call, a filter or a test.
type callArgs struct {
	args      []node
	names     []string
	named     []node
	star      node // *x
	starNamed node // **x
}

// nsRefNode is `ns.name` where something is assigned to it.
type nsRefNode struct {
	line_
	name, attr string
}

// statement is what stands between {% and %}, or text, or a printed expression.
type statement interface{ pos() int }

type (
	dataStatement struct {
		line_
		text string
	}
	printStatement struct {
		line_
		x node
	}
	setStatement struct {
		line_
		target node
		value  node
	}
	setBlock struct {
		line_
		target node
		filter node // may be nil
		body   []statement
	}
	ifStatement struct {
		line_
		tests  []node
		bodies [][]statement
		other  []statement
	}
	forStatement struct {
		line_
		target    node
		items     node
		test      node // may be nil
		recursive bool
		body      []statement
		other     []statement
	}
	withStatement struct {
		line_
		targets, values []node
		body            []statement
	}
	macroStatement struct {
		line_
		*macroBody
	}
	callBlock struct {
		line_
		call *callNode
		*macroBody
	}
	filterBlock struct {
		line_
		filter node
		body   []statement
	}
	scopeBlock struct { // {% block %}: a scope, as nothing inherits
		line_
		body []statement
	}
	generationBlock struct { // {% generation %}: what the model is to produce
		line_
		body []statement
	}
	breakStatement    struct{ line_ }
	continueStatement struct{ line_ }
)

// macroBody is the signature and body of a macro or of a call block.
type macroBody struct {
	name         string
	params       []string
	defaults     []node // of the last len(defaults) parameters
	body         []statement
	usesVarargs  bool
	usesKwargs   bool
	usesCaller   bool
	callerParam  bool // caller is a declared parameter
	declaredLine int
}
