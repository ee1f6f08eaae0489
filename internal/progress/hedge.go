package progress

import "io"

type Options struct {
	Total       int64
	Description string
	Quiet, JSON bool
}
type Progress struct{}

func New(w io.Writer, o Options) *Progress { return &Progress{} }
func (p *Progress) Add(n int64)            {}
func (p *Progress) Done()                  {}
