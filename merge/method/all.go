package method

// methods is the registry: one line per method, in the order in which documentation lists them.
var methods = []*Method{
	Linear,
	UniformSoup,
	WeightMatching,
	Slerp,
	Nuslerp,
	Multislerp,
	Karcher,
	Passthrough,
	TaskArithmetic,
	Ties,
	DareLinear,
	DareTies,
	Della,
	DellaLinear,
	Breadcrumbs,
	BreadcrumbsTies,
	SCE,
	RAM,
	RAMPlusTL,
	ModelStock,
	Nearswap,
	ArceeFusion,
	TSVM,
	IsoC,
	IsoCTS,
	WUDI,
	EMR,
	Consensus,
	Knots,
	CoreSpace,
	Graft,
	LocalizeStitch,
	ComposeSparse,
}

// wholes are the methods that package merge runs on whole models, with data.
var wholes = []*Method{
	Pleas,
	RegMean,
	RegMeanPP,
	GreedySoup,
	LearnedSoup,
	AdaMerging,
	Fisher,
}

// aliases are second names that recipes may use.
var aliases = map[string]string{}
